"""From the store to tidy tables."""
