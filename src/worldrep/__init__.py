"""worldrep: how small transformers build a map of the world inside themselves."""

__version__ = "0.1.0"
