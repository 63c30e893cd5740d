"""Claims and their controls: how far to believe what was seen."""
