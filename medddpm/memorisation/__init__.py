"""Which training scan is nearest to a generated sample."""
