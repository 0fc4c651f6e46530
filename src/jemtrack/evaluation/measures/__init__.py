"""Measures of one model: accuracy, calibration, detection of outliers."""
