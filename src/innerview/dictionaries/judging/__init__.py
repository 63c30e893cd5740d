"""Judging dictionaries: what a network loses by one, what its features are, and what two have in common."""
