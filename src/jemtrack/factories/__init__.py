"""A model, its trainer, evaluator and deployment, each made from one configuration."""
