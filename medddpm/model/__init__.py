"""The networks and the file that holds them."""
