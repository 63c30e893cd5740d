"""The rows of the performance table that a GPU runs: `make bench-gpu`."""
