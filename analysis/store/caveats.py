"""Sentences about what a reader of the numbers has to know: what was chosen, and what differs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from worldrep.data.tasks import TASKS
from worldrep.names import NO_FT, TASK_NAMES
from worldrep.settings import FIELDS, SHARED_GROUPS
from worldrep.tracking import StoredRun

_OWN = tuple(name for name, spec in FIELDS.items() if spec.metadata["group"] == "training")
_SHARED = tuple(name for name, spec in FIELDS.items() if spec.metadata["group"] in SHARED_GROUPS)
SHOWN_MODELS = 3
CLEAR = 2.0  # standard errors
SPLITS = ("standard", "atlantis")


def duplicate_caveats(runs: pd.DataFrame, kind: str, found: Mapping[str, StoredRun]) -> list[str]:
    """One sentence for each model and seed that has several runs to choose from.

    runs: as `choose` returns them; kind: what one of them is called; found: run id -> run.
    """
    caveats = []
    for (model, seed), group in runs.groupby(["model", "seed"]):
        chosen, older = group.index[group["chosen"]], group.index[~group["chosen"]]
        if len(older):
            differing = _differences((found[run_id] for run_id in group.index), _SHARED + _OWN)
            how = f"; they differ in {', '.join(differing)}" if differing else ""
            how += (
                "" if _agree(found[run_id] for run_id in group.index) else "; their numbers differ"
            )
            caveats.append(
                f"{model} seed {seed} has {len(group)} finished {kind}s: {', '.join(chosen)} "
                f"is used ({group['why'].loc[chosen[0]]}), not {', '.join(older)}{how}"
            )
    return caveats


def currency_caveats(runs: pd.DataFrame) -> list[str]:
    """One sentence about chosen evaluations of models that are not what their names stand for."""
    chosen = runs[runs["chosen"]]
    other = chosen[~chosen["current"]]
    if other.empty:
        return []
    which = _listed([f"{run.model} seed {run.seed}" for run in other.itertuples()])
    return [
        f"{which} not trained as the name alone stands for today: other settings, other cities "
        "or another version"
    ]


def base_caveats(runs: pd.DataFrame) -> list[str]:
    """One sentence for each seed with several bases, and one for models that name none."""
    chosen = runs[runs["chosen"]]
    bases, models = chosen[chosen["ft"] == NO_FT], chosen[chosen["ft"] != NO_FT]
    caveats = [
        f"seed {seed} has {count} bases ({', '.join(bases.index[bases['seed'] == seed])}): "
        "every model is compared with the one that it started from"
        for seed, count in bases["seed"].value_counts(sort=False).items()
        if count > 1
    ]
    silent = models[(models["base_run_id"] == "") & (models["base_evaluation_id"] != "")]
    if len(silent):
        which = _listed([f"{run.model} seed {run.seed}" for run in silent.itertuples()])
        caveats.append(
            f"{which} not said to have started from a certain base: compared with the newest "
            "evaluation of a base of the same seed"
        )
    return caveats


def weak_base_caveats(bases: Iterable[StoredRun]) -> list[str]:
    """One sentence for each base that has not clearly learnt some task.

    Normalised improvement divides by what the base has on standard questions more than on Atlantis;
    where that is less than two standard errors, the quotient says little.
    """
    caveats = []
    for run in bases:
        weak = [task for task in TASK_NAMES if _is_weak(run.metrics, task)]
        if weak:
            caveats.append(
                f"the base of seed {run.tag('seed')} is not clearly better on standard questions "
                f"than on Atlantis in {', '.join(weak)} (less than two standard errors): "
                "normalised improvements, which divide by that difference, are unreliable there"
            )
    return caveats


def _is_weak(metrics: Mapping[str, float], task: str) -> bool:
    """Whether an evaluation that has the numbers to say so tells the two splits hardly apart."""
    names = [f"{split}/{task}/{fact}" for split in SPLITS for fact in ("mean", "std", "n")]
    if not all(metrics.get(name, 0.0) > 0 for name in names if name.endswith("/n")):
        return False
    mean, std, n, other_mean, other_std, other_n = (metrics.get(name, math.nan) for name in names)
    gain = mean - other_mean if TASKS[task].accuracy else other_mean - mean
    return gain < CLEAR * math.hypot(std / math.sqrt(n), other_std / math.sqrt(other_n))


def setting_caveats(runs: Iterable[StoredRun]) -> list[str]:
    """One sentence for each setting in which models differ that are compared with each other.

    World, rows and model are compared among all of them, the training among those that are
    trained alike: the bases, and the models with equally many tasks.
    """
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        family = run.tag("ft").partition("-")[0]
        label = "bases" if family == NO_FT else f"{family} models"
        groups.setdefault(label, []).append(run)
    everything = [run for group in groups.values() for run in group]
    compared = [("models", everything, _SHARED), *((k, v, _OWN) for k, v in groups.items())]
    return [
        f"the {label} differ in {name}: {_in_words(kinds)}"
        for label, group, names in compared
        for name, kinds in _differences(group, names).items()
    ]


def _agree(runs: Iterable[StoredRun]) -> bool:
    """Whether evaluations have the same mean in every suite."""
    means = [{k: v for k, v in run.metrics.items() if k.endswith("/mean")} for run in runs]
    return all(found == means[0] for found in means)


def _differences(
    runs: Iterable[StoredRun], names: Iterable[str]
) -> dict[str, dict[str, list[str]]]:
    """Settings that are not the same in all runs: name -> value -> which models have it."""
    kinds: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for run in runs:
        model = f"{run.tag('model')} seed {run.tag('seed')}"
        for name, values in kinds.items():
            if f"cfg.{name}" in run.params:
                values.setdefault(run.params[f"cfg.{name}"], []).append(model)
    return {name: values for name, values in kinds.items() if len(values) > 1}


def _listed(models: Sequence[str]) -> str:
    """`a is`, `a, b are`, or `a, b, c and 4 others are`."""
    if len(models) == 1:
        return f"{models[0]} is"
    others = f" and {len(models) - SHOWN_MODELS} others" if len(models) > SHOWN_MODELS else ""
    return f"{', '.join(models[:SHOWN_MODELS])}{others} are"


def _in_words(kinds: Mapping[str, list[str]]) -> str:
    ordered = sorted(kinds.items(), key=lambda item: -len(item[1]))
    return ", ".join(
        f"{value} ({models[0] if len(models) == 1 else f'{len(models)} models'})"
        for value, models in ordered
    )
