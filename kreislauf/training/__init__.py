"""What a training reads."""
