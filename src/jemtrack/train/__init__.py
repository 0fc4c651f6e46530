"""The training engine; it knows no family of models."""
