"""What the rows of the performance table measure. Nothing that is measured comes from the network."""

import os

# Before any row imports transformers, which reads it once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
