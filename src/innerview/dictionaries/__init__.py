"""Dictionaries: sparse codes of a site."""
