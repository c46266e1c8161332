"""Images from raw data: the methods by name, and what leads to and from them."""
