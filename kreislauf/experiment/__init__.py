"""A/B tests: what is measured of each arm, and when it is enough to decide."""
