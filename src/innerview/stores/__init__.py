"""Stores: activations on disk that outlive a kill, a full disk and flipped bits."""

from innerview.stores.store import Store, open_store

__all__ = ["Store", "open_store"]
