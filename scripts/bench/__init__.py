"""`make bench`: what we promise of speed, measured beside what one would use in our place."""
