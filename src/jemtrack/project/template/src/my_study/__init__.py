"""The code of my-study: what its stages run."""
