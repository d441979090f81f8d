"""How well the one-task models predict the models of several tasks: eight predictors compared."""

from typing import Any

import pandas as pd

from analysis.command import analysis_command
from analysis.figures.intervals import Intervals
from analysis.figures.scatter import Scatter
from analysis.options import Options
from analysis.panels import family_result
from analysis.result import Result
from analysis.statistics.prediction import PREDICTORS, Predictions, predict, scores_over_seeds
from analysis.store.evaluations import read_improvements
from analysis.store.missing import missing_cells
from analysis.store.selection import NothingThere
from analysis.store.source import Source
from worldrep.errors import check_name
from worldrep.names import finetunings

NAME = "predictors"
FAMILIES = ("ftwb2", "ftwb3", "ft2", "ft3")
POINT_COLUMNS = [
    "model", "task", "predicted", "actual", "predictor", "seed", "error", "cells", "run_id",
]  # fmt: skip


def predictors(source: Source, options: Options, family: str = FAMILIES[0]) -> Result:
    """Compare every predictor with the actual matrix of a family.

    Raises InputError for another family than FAMILIES, NothingThere when nothing can be compared.
    """
    check_name("family", family, FAMILIES)
    singles = f"{family[:-1]}1"
    found = read_improvements(source, options, (*finetunings(singles), *finetunings(family)))
    specialists, actual = (found.matrices(finetunings(name)) for name in (singles, family))
    predictions = {
        name: {seed: predict(name, specialists[seed], actual[seed]) for seed in found.seeds}
        for name in PREDICTORS
    }
    points = predicted_cells(predictions, found.cells)
    if points["error"].isna().all():
        raise NothingThere(
            f"{source.place} has no {family} model beside the one-task models of its tasks "
            f"({options.in_words}, seeds {', '.join(map(str, found.seeds))})"
        )
    scores = scores_over_seeds(predictions, actual)
    families = {name: finetunings(name) for name in (singles, family)}
    missing = [missing_cells(found.cells, name, fts) for name, fts in families.items()]
    parts = [ranking(scores, family), *scatters(points, scores, family)]
    return family_result(NAME, options, found, families, parts, missing=pd.concat(missing))


def predicted_cells(predictions: Predictions, cells: pd.DataFrame) -> pd.DataFrame:
    """Return predicted and actual value, error and run of each predictor, seed, model and task."""
    values = {
        (name, seed): values.stack(future_stack=True)
        for name, by_seed in predictions.items()
        for seed, (values, _) in by_seed.items()
    }
    points = pd.concat(values, names=["predictor", "seed"]).rename("predicted").reset_index()
    actual = cells.drop(columns="model").rename(columns={"ft": "model", "normalised": "actual"})
    points = points.merge(actual, how="left", on=["seed", "model", "task"])
    points["error"] = points["predicted"] - points["actual"]
    points["cells"] = points["trained"].map({True: "trained", False: "transfer"})
    return points[POINT_COLUMNS]


def ranking(scores: pd.DataFrame, family: str) -> Intervals:
    """Chart the predictors' mean absolute errors, the best first."""
    table = scores.assign(predictor=scores["predictor"].map(_words))
    n_seeds = int(scores["n_seeds"].max())
    how = "no interval, there is one seed"
    if n_seeds > 1:
        how = f"bars: 95% bootstrap interval over {n_seeds} seeds"
        how += " (of so few seeds hardly more than their range)" if n_seeds < 5 else ""
    return Intervals(
        name="predictors_ranking",
        title=f"Which rule predicts {family} models best from the models of one task?",
        lines=(
            "Mean absolute error of the predicted normalised improvement, over all cells; "
            "lower is better. Fitted rules are tested on models that they were not fitted on.",
        ),
        table=table, x_label="mean absolute error (normalised improvement, no unit)",
        label="predictor", value="mae", low="mae_low", high="mae_high", size=(6.0, 3.2),
        hover=("predictor", "mae", "r", "bias", "trained_mae", "transfer_mae", "n", "missing"),
        notes=(how, *(f"{_words(name)}: {rule.description}" for name, rule in PREDICTORS.items())),
        said=tuple(_in_words(row, place) for place, row in enumerate(table.itertuples())),
        statistics={"predictors": {row["predictor"]: row for row in scores.to_dict("records")}},
    )  # fmt: skip


def _in_words(row: Any, place: int) -> str:
    if not row.n:
        return f"{row.predictor}: nothing to compare (missing {row.missing} cells)"
    rank = {True: "; worse than the first", False: "; not told apart from it", None: ""}
    return (
        f"{row.predictor}: mean absolute error {row.mae:.3f}, r = {row.r:.2f}, "
        f"bias {row.bias:+.3f} (n = {row.n} cells, missing {row.missing})"
        f"{rank[row.differs_from_best] if place else ''}"
    )


def scatters(points: pd.DataFrame, scores: pd.DataFrame, family: str) -> list[Scatter]:
    """Chart predicted against actual values for each predictor, the best first."""
    return [
        Scatter(
            name=f"predictors_{row.predictor}",
            title=f"{family}: {_words(row.predictor)} against actual",
            lines=(f"{PREDICTORS[row.predictor].description} Dashed: predicted = actual.",),
            table=points[points["predictor"] == row.predictor].drop(columns="predictor"),
            x="predicted",
            y="actual",
            x_label="predicted normalised improvement (no unit)",
            y_label="actual normalised improvement (no unit)",
            group="cells",
            identity=True,
            size=(4.6, 4.2),
            hover=("model", "seed", "task", "predicted", "actual", "run_id"),
            notes=(
                f"mean absolute error {row.mae:.3f}, r = {row.r:.2f} (means of {row.n_seeds} "
                f"seeds; n = {row.n} cells, missing {row.missing})",
            ),
        )
        for row in scores.itertuples()
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


main = analysis_command(NAME, predictors, family=f"One of {', '.join(FAMILIES)}.")

if __name__ == "__main__":
    main()
