"""The pocket world: sentences whose every label is known."""
