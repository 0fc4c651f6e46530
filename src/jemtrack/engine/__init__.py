"""The one training engine; it knows no model family."""
