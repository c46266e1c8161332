"""Latent diffusion: schedules, predictions, denoisers, samplers, guidance and the loss."""
