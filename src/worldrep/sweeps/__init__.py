"""Sweeps: searching settings with Optuna, every trial a run of the store."""
