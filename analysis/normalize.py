"""Normalised improvement, under the name that notebooks call it by."""

from worldrep.evaluation.improvement import HIGHEST, LOWEST, normalized_improvement

__all__ = ["HIGHEST", "LOWEST", "normalized_improvement"]
