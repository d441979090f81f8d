"""The training loop, its state, its checkpoints and the strategies of fine-tuning, without MLflow.

May import `evaluation`, `model`, `data` and the top-level modules of `worldrep`.
"""
