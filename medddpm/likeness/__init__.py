"""How like a set of real scans a set of drawn ones is."""
