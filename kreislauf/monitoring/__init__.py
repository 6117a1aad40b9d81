"""Watch a live version: measure, compare, diagnose, decide, record."""
