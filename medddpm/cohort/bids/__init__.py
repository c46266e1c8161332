"""A BIDS data set restored as a BIDS App."""
