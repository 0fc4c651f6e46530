"""The training engine, independent of the family of models that it trains."""
