"""Image and latent: the VAE, its codec and the fidelity decoder."""
