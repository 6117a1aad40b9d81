"""What serves: the release log, Triton, golden requests."""
