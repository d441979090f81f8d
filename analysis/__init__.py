"""Figures and tables from the store: runs -> tidy tables -> statistics -> figures.

May import worldrep. Works from the source tree, installed or not. The formulas are exported here.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

_EXPORTS = {
    "load_evaluations": "analysis.store.evaluations",
    "linear_cka": "analysis.statistics.similarity",
    "normalized_improvement": "worldrep.evaluation.improvement",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
