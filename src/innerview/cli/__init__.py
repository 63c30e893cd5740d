"""The command `innerview`."""
