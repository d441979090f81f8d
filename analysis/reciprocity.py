"""Which tasks give to others, and which take: sums over the ftwb1 models.

give(X): what a model fine-tuned on X gains on the six other tasks. take(X): what the six models
fine-tuned on the other tasks gain on X. net = give - take; above 0 a net giver.
"""

import numpy as np
import pandas as pd

from analysis.command import analysis_command
from analysis.figures.intervals import Intervals
from analysis.options import Options
from analysis.panels import family_result, seeds_in_words
from analysis.result import Result
from analysis.statistics.comparison import over_seeds
from analysis.store.evaluations import read_improvements
from analysis.store.source import Source
from worldrep.names import finetunings

NAME = "reciprocity"
ONE = finetunings("ftwb1")
SIDES = ("give", "take", "net")
COLUMNS = ["task", "side", "mean", "std", "n", "low", "high", "missing", "seeds"]


def reciprocity(source: Source, options: Options) -> Result:
    """Return give, take and net of each task. Raises NothingThere without ftwb1 models."""
    found = read_improvements(source, options, ONE)
    by_seed = pd.concat(
        [exchange(matrix).assign(seed=seed) for seed, matrix in found.matrices(ONE).items()]
    )
    parts = [exchange_chart(by_seed, found.seeds)]
    tables = {"values": found.cells, "by_seed": by_seed}
    return family_result(NAME, options, found, {"ftwb1": ONE}, parts, tables=tables)


def exchange(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return task, give, take and net of a 7 x 7 matrix (rows: trained on, columns: tested on).

    A sum that lacks one of its six cells is NaN.
    """
    values = matrix.to_numpy(dtype=float).copy()
    np.fill_diagonal(values, 0.0)
    give, take = values.sum(axis=1), values.sum(axis=0)
    return pd.DataFrame({"task": matrix.columns, "give": give, "take": take, "net": give - take})


def exchange_chart(by_seed: pd.DataFrame, seeds: tuple[int, ...]) -> Intervals:
    """Chart all tasks, the greatest net giver first. by_seed: rows of `exchange` with seed."""
    sums = by_seed.melt(["task", "seed"], SIDES, "side")
    table = over_seeds(sums, ["side", "task"], "value").drop(columns="seeds")
    table = table.rename(columns={"parts": "seeds"})
    net = table[table["side"] == "net"].set_index("task")["mean"].sort_values(ascending=False)
    order = pd.MultiIndex.from_product([SIDES, net.index], names=["side", "task"])
    rows = table.set_index(["side", "task"]).loc[order]
    facts = rows[["mean", "std", "n", "low", "high", "missing"]]
    notes = [
        f"{seeds_in_words(seeds)}; bars: 95% interval over seeds (Student), cut where they leave "
        "the axes; rings: seeds"
    ]
    if lacking := int(rows["missing"].sum()):
        notes.append(f"{lacking} sums of a seed are missing, as they lack a cell; see missing.csv")
    return Intervals(
        name=NAME, title="What each task gives to the others, and takes from them",
        lines=(
            "give: how much a model fine-tuned on this task gains on the six others, summed; take: "
            "how much the six other models gain on this task; net = give - take.",
        ),
        table=rows.reset_index()[COLUMNS], x_label="sum of six normalised improvements (no unit)",
        label="task", parts="seeds", facet="side",
        reference=0.0, size=(3.4, 2.9), hover=("task", "side", "mean", "std", "n"),
        notes=tuple(notes), said=tuple(_in_words(task, mean) for task, mean in net.items()),
        statistics={side: facts.loc[side].to_dict("index") for side in SIDES},
    )  # fmt: skip


def _in_words(task: str, net: float) -> str:
    if not np.isfinite(net):
        return f"{task}: net unknown, some of its cells are missing"
    if abs(net) < 0.005:
        return f"{task}: net 0.00 (even)"
    return f"{task}: net {net:+.2f} ({'giver' if net > 0 else 'taker'})"


main = analysis_command(NAME, reciprocity)

if __name__ == "__main__":
    main()
