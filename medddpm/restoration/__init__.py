"""A model, and how it restores a scan."""
