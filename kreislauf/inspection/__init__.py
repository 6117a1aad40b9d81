"""A look at a shop's data, before any of it is loaded."""
