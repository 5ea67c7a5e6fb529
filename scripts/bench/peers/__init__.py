"""What one would use in our place."""
