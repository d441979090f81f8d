"""From a model to numbers: generation, scores, hidden states, probes.

Imports `data` and `model`.
"""
