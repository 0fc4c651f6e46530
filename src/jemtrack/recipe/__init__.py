"""Recipes in YAML: read, checked and built."""
