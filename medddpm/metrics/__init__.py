"""How good a restoration is, in numbers."""
