"""What changed in the webhook contract since its releases, who would break, and which number is due."""
