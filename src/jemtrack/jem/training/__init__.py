"""How joint energy-based models are trained."""
