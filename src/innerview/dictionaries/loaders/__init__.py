"""Published dictionary formats, one file each, and the one function that reads them all."""

from innerview.dictionaries.loaders.loading import load_dictionary

__all__ = ["load_dictionary"]
