"""From a model to numbers: generated answers, scores, hidden states, probes.

May import `model`, `data` and the top-level modules of `worldrep`.
"""
