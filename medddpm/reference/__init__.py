"""Another contrast of the same person, which helps to restore a scan."""
