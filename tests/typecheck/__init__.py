"""What mypy says of booking code: these files are checked, and never run."""
