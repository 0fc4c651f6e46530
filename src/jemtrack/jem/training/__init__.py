"""How joint energy models are trained."""
