"""What denoisers leave of lesions."""
