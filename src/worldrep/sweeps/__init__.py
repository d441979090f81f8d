"""Sweeps: hyperparameter search with Optuna, with one MLflow run per trial.

May import every other package of worldrep.
"""
