"""Data sets: sources, splits, augmentation."""
