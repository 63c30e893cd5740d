"""Training of dictionaries."""
