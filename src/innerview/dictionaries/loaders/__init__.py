"""Published dictionary formats, one file each, and the one function that reads them all."""

from innerview.dictionaries.loaders.loading import load_dictionary
from innerview.dictionaries.loaders.saving import OwnFormat, SAELensFormat, save_dictionary

__all__ = ["OwnFormat", "SAELensFormat", "load_dictionary", "save_dictionary"]
