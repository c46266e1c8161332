"""A mark that tells synthetic scans from real ones, and signatures of their sidecars."""
