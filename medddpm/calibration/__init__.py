"""Intervals that hold, and the guard that knows what is usual."""
