"""Which tasks carry new cities over to which others: heatmaps of the ftwb1 and ftwb2 models.

For every seed and for their mean: the normalised improvement of each model on each task, what is
expected of ftwb2 models from the ftwb1 models of their tasks, and the difference.
"""

from collections.abc import Collection

from analysis.command import analysis_command
from analysis.options import Options
from analysis.panels import family_panels, family_result, flat
from analysis.result import Result
from analysis.store.evaluations import read_improvements
from analysis.store.source import Source
from worldrep.names import finetunings

NAME = "exp1_heatmaps"
FAMILIES = {family: finetunings(family) for family in ("ftwb1", "ftwb2")}


def exp1_heatmaps(source: Source, options: Options, only: Collection[str] | None = None) -> Result:
    """Return the heatmaps of the ftwb1 and ftwb2 models; only: evaluations to choose from."""
    found = read_improvements(source, options, sum(FAMILIES.values(), ()), only=only)
    parts = flat(family_panels(found, FAMILIES))
    return family_result(NAME, options, found, FAMILIES, parts)


main = analysis_command(NAME, exp1_heatmaps)

if __name__ == "__main__":
    main()
