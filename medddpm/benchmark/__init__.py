"""Denoisers compared on simulated noise and on repeats."""
