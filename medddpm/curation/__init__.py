"""From a hospital's folder to training data: manifest, consent, quality, splits, packed cache."""
