"""From a scan to what the networks take: intensity, noise, tiles."""
