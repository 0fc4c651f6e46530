"""The networks of the family: autoencoder, discriminator, flow processor, text encoder."""
