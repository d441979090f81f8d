"""What fine-tuning costs: how far models forget the cities that their base knew.

Every model that is fine-tuned from pt1 is compared with the base that it started from: the change
on standard questions, the gain on Atlantis, and the curves of both. If the store has several
strategies of fine-tuning, they are compared with each other.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.command import analysis_command
from analysis.figures.kinds import Kind
from analysis.forgetting import charts
from analysis.forgetting import statistics as stats
from analysis.forgetting.reading import VALIDATED, Finetuned, read_strategies
from analysis.options import Options
from analysis.panels import panels_of
from analysis.result import Part, Result
from analysis.statistics.comparison import nested
from analysis.statistics.matrices import to_matrix
from analysis.store.evaluations import PRETRAIN
from analysis.store.source import Source
from worldrep.data.tasks import TASKS
from worldrep.names import FAMILIES, FINETUNINGS, TASK_NAMES, family_in_words, finetunings

NAME = "forgetting"
VALUES = [
    "model", "ft", "seed", "task", "trained", "unit", "before", "after", "raw_change",
    "normalised_change", "run_id", "model_run_id", "base_run_id", "base_evaluation_id", "reason",
    "command",
]  # fmt: skip
HALFWAY = ["mean", "std", "low", "high", "n", "n_happened", "n_models", "n_early"]
# Fine-tuning may raise errors some hundredfold, which is a change of about -5 to -6.
CHANGE = Kind(
    "normalised change on standard questions (no unit)",
    (
        "The change from the model's own base on the cities that the base knows. Red, below 0: "
        "forgotten. Blue, above 0: improved.",
        "Errors: ln(before / after); -2.30 is ten times, -4.61 a hundred times the error. "
        "Accuracies: (after - before) / (1 - before); -1 is twice as many wrong answers.",
    ),
    "RdBu", (-6.0, 6.0), "both", "{:+.2f}",
    columns="tested on (standard questions, none about Atlantis)",
)  # fmt: skip


def forgetting(source: Source, options: Options) -> Result:
    """Measure forgetting by the strategy of the options, and compare all strategies.

    Raises NothingThere if there is nothing to draw.
    """
    every = {
        name: replace(o, cells=stats.add_changes(o.cells), points=stats.add_normalised(o.points))
        for name, o in read_strategies(source, options).items()
    }
    own = every[options.strategy]
    runs, caveats = [own.runs], [*own.found.caveats, *_caveats(own)]
    missing = [*(own.lacking(f, finetunings(f)) for f in own.families), own.missing]
    parts: list[Part] = [*_heatmaps(own), _plane(own)]
    tables = {"values": own.cells[VALUES], **stats.raw_tables(own.cells)}
    statistics: dict[str, Any] = {"raw_change": stats.raw_statistics(own.cells)}
    if len(own.points):
        points = pd.concat([own.points, stats.mean_curves(own.points)], ignore_index=True)
        tables["halfway"] = stats.halfway_table(points)
        overview = stats.halfway_summary(tables["halfway"])
        parts += charts.curve_charts(points, overview)
        statistics["halfway"] = nested(overview, ["family", "split", "task"], HALFWAY)
    fts, others = _common_models(every)
    if fts and len(every) > 1:
        runs += [other.runs for other in every.values()]
        missing += [other.lacking(strategy, fts) for strategy, other in every.items()]
        of_all = "strategies are compared by the models that all of them have"
        of_some = "left out of the comparison of strategies, as one of them lacks it"
        shown = ((of_all, fts), (of_some, others))
        caveats += [f"{text}: {', '.join(models)}" for text, models in shown if models]
        cells = pd.concat([other.cells for other in every.values()])
        compared = stats.compare(every, fts, cells, pd.concat([o.points for o in every.values()]))
        parts += charts.strategy_charts(compared)
        tables["strategies_over_seeds"] = compared.over_seeds
        facts = nested(compared.over_seeds, ["strategy", "quantity"], stats.SPREAD)
        statistics["strategies"] = {"models": fts, **facts}
    used = pd.concat(runs)
    return Result(
        name=NAME, options=options, seeds=own.found.seeds, parts=parts,
        missing=pd.concat(missing, ignore_index=True),
        runs_used=used[~used.index.duplicated()].sort_values(["seed", "model"], kind="stable"),
        caveats=caveats, tables=tables, statistics=statistics,
        tags={"pretrain": PRETRAIN, "ft": ",".join(own.families), "tasks": ",".join(TASK_NAMES)},
    )  # fmt: skip


def _common_models(every: Mapping[str, Finetuned]) -> tuple[list[str], list[str]]:
    """Return the fine-tunings that all strategies have, and those that only some have."""
    evaluated = [set(own.cells.loc[own.cells["run_id"] != "", "ft"]) for own in every.values()]
    common, some = set.intersection(*evaluated), set.union(*evaluated)
    there = [ft for ft in FINETUNINGS if ft in some]
    return [ft for ft in there if ft in common], [ft for ft in there if ft not in common]


def _heatmaps(own: Finetuned) -> list[Part]:
    parts: list[Part] = []
    for family in own.families:
        title = f"Forgetting: fine-tuned on {family_in_words(family)}"
        matrices = {
            seed: to_matrix(own.cells, finetunings(family), seed, "normalised_change")
            for seed in own.found.seeds
        }
        parts += panels_of(f"change_{family}", title, CHANGE, matrices)
    return parts


def _plane(own: Finetuned) -> Part:
    points = stats.mean_by_model(own.cells)[["model", "ft", "seed", "change", "gain", "run_id"]]
    points = points.assign(label=points["ft"], family=charts.family_of(points["ft"]))
    return charts.gain_against_loss("gain_against_loss", points, "family")


def _caveats(own: Finetuned) -> list[str]:
    cells, points = own.cells, own.points
    absent = ", ".join(family for family in FAMILIES if family not in own.families)
    said = [f"{absent}: left out, the store has no such model"] if absent else []
    perfect = cells["task"].map(lambda task: TASKS[task].accuracy) & (cells["before"] == 1)
    kinds = {
        "the base is perfect, so that the normalised change is the raw one": perfect,
        stats.NO_LOGARITHM: cells["reason"] == stats.NO_LOGARITHM,
    }
    for text, mask in kinds.items():
        seeds = cells[mask].groupby("task", sort=False)["seed"].unique()
        where = [f"{task} of seeds {', '.join(map(str, of))}" for task, of in seeds.items()]
        said += [f"{'; '.join(where)}: {text}"] if where else []
    validated = points[points["measured_by"] == VALIDATED]
    if points.empty:
        said.append("no model has a curve: neither evaluated checkpoints nor validations by step")
    elif len(validated):
        n, rows = validated["run_id"].nunique(), ", ".join(sorted(set(validated["rows"])))
        said.append(
            f"the curves of {n} of {points['run_id'].nunique()} models and seeds are of the "
            f"validations while training ({rows} questions a point, others than those of the "
            "evaluation), as only their last checkpoint is evaluated; an evaluation with "
            "checkpoints=all measures them, missing.csv (course) has the commands"
        )
    return said


main = analysis_command(NAME, forgetting)
