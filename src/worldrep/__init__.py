"""worldrep: MLflow-tracked experiments on how small transformers represent a map.

The public API is imported on first use, so that `import worldrep` loads neither torch nor MLflow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worldrep.data.sets import maker_of as maker_of
    from worldrep.data.tasks import TASKS as TASKS
    from worldrep.data.world import World as World
    from worldrep.data.world import build_world as build_world
    from worldrep.evaluation.improvement import normalized_improvement as normalized_improvement
    from worldrep.evaluation.representations import Request as Request
    from worldrep.evaluation.representations import extract as extract
    from worldrep.evaluation.representations import probe_positions as probe_positions
    from worldrep.evaluation.suites import evaluate as evaluate
    from worldrep.evaluation.suites import generate as generate
    from worldrep.model.qwen2 import build_model as build_model
    from worldrep.model.qwen2 import load_model as load_model
    from worldrep.names import ModelName as ModelName
    from worldrep.names import parse_model as parse_model
    from worldrep.scales import resolve as resolve
    from worldrep.settings import Settings as Settings
    from worldrep.training.loop import TrainingInputs as TrainingInputs
    from worldrep.training.loop import train as train

__version__ = "0.1.0"

_API = {
    "data.sets": ("maker_of",),
    "data.tasks": ("TASKS",),
    "data.world": ("World", "build_world"),
    "evaluation.improvement": ("normalized_improvement",),
    "evaluation.representations": ("Request", "extract", "probe_positions"),
    "evaluation.suites": ("evaluate", "generate"),
    "model.qwen2": ("build_model", "load_model"),
    "names": ("ModelName", "parse_model"),
    "scales": ("resolve",),
    "settings": ("Settings",),
    "training.loop": ("TrainingInputs", "train"),
}
_MODULE_OF = {name: module for module, names in _API.items() for name in names}
__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
