"""A latent flow model conditioned on text: a compressor, an expander and a flow between."""
