"""Hold-out, scoring, intervals, and the gate."""
