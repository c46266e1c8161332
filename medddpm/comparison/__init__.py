"""Generators of whole heads beside each other, trained on the same heads for as long."""
