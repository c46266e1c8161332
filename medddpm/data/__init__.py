"""Training data from the folders of a hospital."""
