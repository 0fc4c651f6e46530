"""Data sets: sources, splits, augmentation, corruptions, outliers."""
