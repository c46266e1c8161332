"""What a scanner measures of an image, as linear operators on complex64 tensors, batched.

Images are (B, X, Y, Z), coil images and k-space (B, C, X, Y, Z); a 2D slice has Z = 1. Nothing here
knows of files, noise laws or networks.
"""
