"""The training loop, its state and its checkpoints. Runs without MLflow.

Imports `data`, `model` and `evaluation`.
"""
