"""What a reader has to know of the numbers: those that are missing, with commands, and caveats."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from analysis.statistics.matrices import specialists_of
from worldrep.data.tasks import TASKS
from worldrep.names import FINETUNINGS, NO_FT, TASK_NAMES
from worldrep.settings import FIELDS, SHARED_GROUPS
from worldrep.tracking import StoredRun

MISSING_COLUMNS = ["matrix", "seed", "model", "task", "reason", "command"]
SHOWN_MODELS = 3
CLEAR = 2.0  # standard errors
_OWN = [name for name, spec in FIELDS.items() if spec.metadata["group"] == "training"]
_SHARED = [name for name, spec in FIELDS.items() if spec.metadata["group"] in SHARED_GROUPS]

Why = Callable[[Any], tuple[str, str]]  # row as a named tuple -> reason, command or ""


def with_reasons(rows: pd.DataFrame, why: Why) -> pd.DataFrame:
    """Add the columns reason and command: why a row is missing, and what computes it."""
    facts = pd.DataFrame([why(row) for row in rows.itertuples()], rows.index, ["reason", "command"])
    return rows.assign(reason=facts["reason"], command=facts["command"])


def missing_table(rows: Iterable[Mapping[str, Any]] = ()) -> pd.DataFrame:
    """Return the rows as a table with MISSING_COLUMNS; task and seed default to empty."""
    empty = {"task": "", "seed": ""}
    return pd.DataFrame([empty | dict(row) for row in rows], columns=MISSING_COLUMNS)


def missing_cells(cells: pd.DataFrame, matrix: str, fts: Sequence[str]) -> pd.DataFrame:
    """Return the missing cells of a matrix of fine-tunings, with MISSING_COLUMNS."""
    absent = cells[cells["ft"].isin(fts) & (cells["reason"] != "")]
    return absent.assign(matrix=matrix, model=absent["ft"])[MISSING_COLUMNS]


def missing_expected(
    cells: pd.DataFrame, matrix: str, fts: Sequence[str], *, actual: bool
) -> pd.DataFrame:
    """Return the missing cells of an expected matrix, explained by the cells that it needs.

    actual: the matrix is actual - expected, which needs the actual cells, too.
    """
    needs = [
        (ft, name)
        for ft in fts
        for name in (*specialists_of(FINETUNINGS[ft], ft), *((ft,) if actual else ()))
    ]
    absent = cells.loc[cells["reason"] != "", ["seed", "ft", "task", "reason", "command"]]
    gaps = pd.DataFrame(needs, columns=["model", "ft"]).merge(absent, on="ft")
    gaps["reason"] = gaps["ft"] + ": " + gaps["reason"]
    wanted = product([matrix], cells["seed"].unique(), fts, TASK_NAMES)
    table = pd.DataFrame(wanted, columns=["matrix", "seed", "model", "task"])
    texts = [_joined(gaps, "reason", "; "), _joined(gaps, "command", " && ")]
    return table.merge(pd.concat(texts, axis=1).reset_index())


def _joined(gaps: pd.DataFrame, column: str, separator: str) -> pd.Series:
    keys = ["seed", "model", "task"]
    return gaps.drop_duplicates([*keys, column]).groupby(keys)[column].agg(separator.join)


def run_caveats(runs: pd.DataFrame, kind: str, found: Mapping[str, StoredRun]) -> list[str]:
    """Say which runs are used, and how they differ.

    runs: table of `choose`; kind: what a run is called; found: run id -> run.
    """
    used = [found[run_id] for run_id in runs.index[runs["chosen"]]]
    duplicates = duplicate_caveats(runs, kind, found)
    return [*duplicates, *currency_caveats(runs), *setting_caveats(used)]


def duplicate_caveats(runs: pd.DataFrame, kind: str, found: Mapping[str, StoredRun]) -> list[str]:
    """Say which run is used of each model and seed that has several, and how they differ."""
    caveats = []
    for (model, seed), group in runs.groupby(["model", "seed"]):
        chosen, older = group[group["chosen"]], group.index[~group["chosen"]]
        if len(older):
            own = [found[run_id] for run_id in group.index]
            differing = ", ".join(_differences(own, [*_SHARED, *_OWN]))
            how = f"; they differ in {differing}" if differing else ""
            means = [{k: v for k, v in run.metrics.items() if k.endswith("/mean")} for run in own]
            how += "; their numbers differ" if any(other != means[0] for other in means) else ""
            caveats.append(
                f"{model} seed {seed} has {len(group)} finished {kind}s: {', '.join(chosen.index)} "
                f"is used ({chosen['why'].iloc[0]}), not {', '.join(older)}{how}"
            )
    return caveats


def names_of(runs: pd.DataFrame) -> list[str]:
    """Return the model and seed of each run as text."""
    return [f"{run.model} seed {run.seed}" for run in runs.itertuples()]


def currency_caveats(runs: pd.DataFrame) -> list[str]:
    """Name the chosen models whose fingerprint does not match the current code and settings."""
    models = names_of(runs[runs["chosen"] & ~runs["current"]])
    others = f" and {len(models) - SHOWN_MODELS} others" if len(models) > SHOWN_MODELS else ""
    listed = f"{', '.join(models[:SHOWN_MODELS])}{others} {'are' if models[1:] else 'is'}"
    how = "not trained as the name alone stands for today: other settings, cities or version"
    return [f"{listed} {how}"] if models else []


def base_caveats(bases: pd.DataFrame) -> list[str]:
    """Name the bases that were trained several times. bases: chosen runs, by run id."""
    return [
        f"{model} seed {seed} has {len(own)} bases ({', '.join(own.index)}): the first is shown, "
        "and every model is compared with the one that it started from"
        for (model, seed), own in bases.groupby(["model", "seed"], sort=False)
        if len(own) > 1
    ]


def weak_base_caveats(bases: Iterable[StoredRun]) -> list[str]:
    """Name the bases whose advantage on standard questions is below two standard errors."""
    return [
        f"{run.tag('model')} seed {run.tag('seed')} is not clearly better on standard questions "
        f"than on Atlantis in {', '.join(weak)} (less than two standard errors): normalised "
        "improvements, which divide by that difference, are unreliable there"
        for run in bases
        if (weak := [task for task in TASK_NAMES if _is_weak(run.metrics, task)])
    ]


def _is_weak(metrics: Mapping[str, float], task: str) -> bool:
    """Whether the two splits hardly differ in a task; False without the numbers to tell."""
    facts = product(("standard", "atlantis"), ("mean", "std", "n"))
    known, std, n, unknown, other_std, other_n = (
        metrics.get(f"{split}/{task}/{fact}", math.nan) for split, fact in facts
    )
    if not (n > 0 and other_n > 0):
        return False
    gain = known - unknown if TASKS[task].accuracy else unknown - known
    return gain < CLEAR * math.hypot(std / math.sqrt(n), other_std / math.sqrt(other_n))


def setting_caveats(runs: Iterable[StoredRun]) -> list[str]:
    """Name the settings that differ between models which are compared with each other.

    World, rows and model are compared among all runs; settings of the training among models of the
    same kind of pretraining and with equally many tasks of fine-tuning.
    """
    every, groups = list(runs), defaultdict[tuple[str, str], list[StoredRun]](list)
    for run in every:
        kind, dash, _ = run.tag("pretrain").partition("-")
        groups[kind + dash, run.tag("ft").partition("-")[0]].append(run)
    compared = [("models", every, _SHARED)]
    for (_, ft), own in groups.items():
        compared.append(("bases" if ft == NO_FT else f"{ft} models", own, _OWN))
    return [
        f"the {label} differ in {name}: {kinds}"
        for label, group, names in compared
        for name, kinds in _differences(group, names).items()
    ]


def _differences(runs: Sequence[StoredRun], names: Sequence[str]) -> dict[str, str]:
    """Return the settings that differ between runs: name -> the values and who has them."""
    models = [f"{run.tag('model')} seed {run.tag('seed')}" for run in runs]
    rows = [[run.params.get(f"cfg.{name}") for name in names] for run in runs]
    table = pd.DataFrame(rows, index=models, columns=names)
    return {name: _in_words(table[name]) for name in names if table[name].nunique() > 1}


def _in_words(values: pd.Series) -> str:
    groups = [(value, own.index) for value, own in values.groupby(values, sort=False)]
    return ", ".join(
        f"{value} ({own[0] if len(own) == 1 else f'{len(own)} models'})"
        for value, own in sorted(groups, key=lambda group: -len(group[1]))
    )
