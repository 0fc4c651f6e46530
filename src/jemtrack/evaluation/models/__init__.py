"""Evaluating models side by side: outputs, comparison, detection of outliers, results."""
