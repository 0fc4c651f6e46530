"""inVAE: a variational autoencoder of single cells, with priors by label and by batch."""
