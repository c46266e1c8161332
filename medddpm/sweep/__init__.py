"""Trainings of every combination of settings, compared."""
