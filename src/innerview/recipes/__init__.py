"""Recipes: edits on disk, as control vectors of llama.cpp, and baked into weights."""

from innerview.recipes.recipe import Recipe

__all__ = ["Recipe"]
