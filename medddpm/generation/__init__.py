"""Synthetic scans: a prior over whole heads, its training, and what is drawn from it."""
