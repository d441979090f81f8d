"""Sentences that a reader of the numbers has to know: what was chosen, left out, or differs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

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
OTHER_CITIES = "extracted from other cities"
UNKNOWN_CITIES = "extracted from a training that is not finished or not in the store"


def unnamed_caveats(n: int) -> list[str]:
    """Say how many runs were left out because they have no model or no seed."""
    runs = "1 finished run does" if n == 1 else f"{n} finished runs do"
    return [f"{runs} not say of which model and seed: left out"] if n else []


def unknown_name_caveats(names: Iterable[str]) -> list[str]:
    """Say which models were left out because this version does not know their names."""
    names = ", ".join(sorted(set(names)))
    return [f"left out, as this version does not know their names: {names}"] if names else []


def seed_caveats(asked: set[int], based: set[int], tuned: set[int]) -> list[str]:
    """Name the seeds that are left out, and those that lack a base or a fine-tuned model.

    based, tuned: seeds with an evaluated base, and with an evaluated fine-tuned model.
    """
    left_out = sorted(based - tuned - asked)
    return [
        *(f"seed {seed} is left out: only its base is evaluated" for seed in left_out),
        *(f"seed {seed} has no evaluated base" for seed in sorted(asked - based)),
        *(f"seed {seed} has no fine-tuned model" for seed in sorted(asked - tuned)),
    ]


def city_caveats(runs: pd.DataFrame) -> list[str]:
    """Name the extractions that are left out for their cities, as their column left_out says."""
    kept = int((runs["left_out"] == "").sum())
    reasons = {
        OTHER_CITIES: f"their representations are of other cities than those of the {kept} others",
        UNKNOWN_CITIES: "their trainings are not finished or not in the store, so that nothing "
        "says which cities they are of",
    }
    named = {reason: _names(runs[runs["left_out"] == reason]) for reason in reasons}
    return [
        f"{', '.join(names)}: left out, {reasons[reason]}"
        for reason, names in named.items()
        if names
    ]


def duplicate_caveats(runs: pd.DataFrame, kind: str, found: Mapping[str, StoredRun]) -> list[str]:
    """Say which run is used of each model and seed that has several, and how they differ.

    runs: table of `choose`; kind: what a run is called; found: run id -> run.
    """
    caveats = []
    for (model, seed), group in runs.groupby(["model", "seed"]):
        chosen, older = group.index[group["chosen"]], group.index[~group["chosen"]]
        if len(older):
            own = [found[run_id] for run_id in group.index]
            differing = _differences(own, _SHARED + _OWN)
            how = f"; they differ in {', '.join(differing)}" if differing else ""
            how += "" if _agree(own) else "; their numbers differ"
            caveats.append(
                f"{model} seed {seed} has {len(group)} finished {kind}s: {', '.join(chosen)} "
                f"is used ({group['why'].loc[chosen[0]]}), not {', '.join(older)}{how}"
            )
    return caveats


def currency_caveats(runs: pd.DataFrame) -> list[str]:
    """Name the chosen models whose fingerprint does not match the current code and settings."""
    other = runs[runs["chosen"] & ~runs["current"]]
    if other.empty:
        return []
    return [
        f"{_listed(_names(other))} not trained as the name alone stands for today: other settings, "
        "other cities or another version"
    ]


def base_caveats(runs: pd.DataFrame) -> list[str]:
    """Name the seeds with several bases. runs: table of `choose`."""
    bases = runs[runs["chosen"] & (runs["ft"] == NO_FT)]
    return [
        f"seed {seed} has {count} bases ({', '.join(bases.index[bases['seed'] == seed])}): "
        "every model is compared with the one that it started from"
        for seed, count in bases["seed"].value_counts(sort=False).items()
        if count > 1
    ]


def several_bases_caveats(wanted: pd.DataFrame, chosen: pd.DataFrame) -> list[str]:
    """Say which run is shown of a base that was trained several times with one seed.

    wanted: one row per model and seed; chosen: runs with run_id, those that are shown first.
    """
    runs = wanted.merge(chosen, on=["model", "seed"])
    return [
        f"of several {model} seed {seed}, {own.iloc[0]} is shown, not {', '.join(own.iloc[1:])}"
        for (model, seed), own in runs.groupby(["model", "seed"], sort=False)["run_id"]
        if len(own) > 1
    ]


def weak_base_caveats(bases: Iterable[StoredRun]) -> list[str]:
    """Name the bases that have not clearly learnt some task.

    Normalised improvement divides by the base's advantage on standard questions over Atlantis. It
    is unreliable where this advantage is less than two standard errors.
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
    """Whether the two splits hardly differ in a task; False without the numbers to tell."""
    names = [f"{split}/{task}/{fact}" for split in SPLITS for fact in ("mean", "std", "n")]
    if not all(metrics.get(name, 0.0) > 0 for name in names if name.endswith("/n")):
        return False
    mean, std, n, other_mean, other_std, other_n = (metrics.get(name, math.nan) for name in names)
    gain = mean - other_mean if TASKS[task].accuracy else other_mean - mean
    return gain < CLEAR * math.hypot(std / math.sqrt(n), other_std / math.sqrt(other_n))


def setting_caveats(runs: Iterable[StoredRun]) -> list[str]:
    """Name the settings that differ between models which are compared with each other.

    World, rows and model are compared among all runs; settings of the training among the bases,
    and among the models with equally many tasks.
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
    runs: Collection[StoredRun], names: Iterable[str]
) -> dict[str, dict[str, list[str]]]:
    """Return the settings that differ between runs: name -> value -> models that have it."""
    kinds: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for run in runs:
        model = f"{run.tag('model')} seed {run.tag('seed')}"
        for name, values in kinds.items():
            if f"cfg.{name}" in run.params:
                values.setdefault(run.params[f"cfg.{name}"], []).append(model)
    return {name: values for name, values in kinds.items() if len(values) > 1}


def _names(runs: pd.DataFrame) -> list[str]:
    return [f"{run.model} seed {run.seed}" for run in runs.itertuples()]


def _listed(models: Sequence[str]) -> str:
    """Join names with their verb: `a is`, `a, b are`, or `a, b, c and 4 others are`."""
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
