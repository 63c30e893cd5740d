"""Lexicons of other worlds."""
