"""How good a restoration is: metrics and pictures."""
