"""Studies: named lists of models, each trained, evaluated and extracted."""

from __future__ import annotations

from worldrep.errors import unknown
from worldrep.names import ModelName

DEMO = (
    ModelName("pt1"),
    *(ModelName("pt1", f"ftwb1-{k}") for k in range(1, 8)),
    *(ModelName("pt1", f"ftwb2-{k}") for k in (2, 13)),
)
STUDIES = {"demo": DEMO}


def study_models(name: str) -> tuple[ModelName, ...]:
    """The models of a study, bases first. Raises InputError for an unknown study."""
    if name not in STUDIES:
        raise unknown("study", name, STUDIES)
    return STUDIES[name]
