"""What more than one implementation must do alike."""
