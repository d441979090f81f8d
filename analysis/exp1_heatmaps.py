"""Which fine-tuning tasks improve answers about Atlantis: heatmaps of the ftwb1 and ftwb2 models.

For every seed and for their mean: the normalised improvement of each model on each task, what is
expected of ftwb2 models from the ftwb1 models of their tasks, and the difference.
"""

from collections.abc import Collection

import pandas as pd

from analysis.command import analysis_command
from analysis.options import Options
from analysis.panels import family_panels, family_result, flat
from analysis.result import Result
from analysis.store.evaluations import read_improvements
from analysis.store.source import Source
from worldrep.names import TASK_NAMES, finetunings

NAME = "exp1_heatmaps"
FAMILIES = {family: finetunings(family) for family in ("ftwb1", "ftwb2")}


def exp1_heatmaps(source: Source, options: Options, only: Collection[str] | None = None) -> Result:
    """Return the heatmaps of the ftwb1 and ftwb2 models; only: evaluations to choose from."""
    found = read_improvements(source, options, sum(FAMILIES.values(), ()), only=only)
    parts = flat(family_panels(found, FAMILIES))
    return family_result(NAME, options, found, FAMILIES, parts)


def overview(result: Result) -> str:
    """Return a short table of the mean improvements by task, on trained tasks and on others."""
    cells = result.tables["values"]
    kinds = cells["trained"].map({True: "trained", False: "transfer"})
    families = cells["ft"].str.partition("-")[0].rename("family")
    every = pd.concat([cells, cells.assign(task="all seven")])
    table = every.pivot_table("normalised", "task", [families, kinds], sort=False)
    table = table.reindex([*TASK_NAMES, "all seven"])
    table = table.rename_axis(index=None, columns=(None, None)).sort_index(axis="columns")
    head = (
        "mean improvement on Atlantis of models fine-tuned on one task (ftwb1) and on two (ftwb2)\n"
        "(0: as the base; 1: as the base on cities that it knows; transfer: on other tasks)"
    )
    return f"{head}\n{table.to_string(float_format='{:.2f}'.format, na_rep='-')}"


main = analysis_command(NAME, exp1_heatmaps)

if __name__ == "__main__":
    main()
