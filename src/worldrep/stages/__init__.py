"""The stages of a model's life as recorded work: train, evaluate, extract."""

from worldrep.stages.evaluate import evaluate_model
from worldrep.stages.extract import extract_model
from worldrep.stages.find import find_model, model_by_run_id
from worldrep.stages.train import train_model

__all__ = ["evaluate_model", "extract_model", "find_model", "model_by_run_id", "train_model"]
