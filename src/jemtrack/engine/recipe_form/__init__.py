"""The form of a recipe in YAML, and all that can be wrong with it."""
