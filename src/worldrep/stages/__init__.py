"""Training, evaluation and extraction as recorded runs, each done once.

Imports `tracking`, `training`, `evaluation`, `model`, `data` and the top-level modules.
"""
