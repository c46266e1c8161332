"""Weights of others: read where nothing of them runs, checked name by name, kept as safetensors."""
