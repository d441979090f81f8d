"""Figures that compare strategies of fine-tuning."""

from __future__ import annotations

import pandas as pd

from analysis.charts.gain_against_loss import gain_against_loss
from analysis.charts.time_courses import PANELS
from analysis.figures.chart import Chart
from analysis.figures.curves import Curves
from analysis.statistics.strategies import mean_of_seeds
from analysis.store.strategies import Compared
from worldrep.names import STRATEGIES


def strategy_charts(compared: Compared) -> list[Chart]:
    """Each strategy on the plane of gain and loss, each of its models, and when it happens; none
    if there is nothing to compare."""
    if compared.models.empty:
        return []
    n = len(compared.fts)
    one = f"the model {compared.fts[0]}" if n == 1 else f"the same {n} models"
    seeds = compared.seeds.assign(label=compared.seeds["strategy"].astype(str), run_id="")
    charts: list[Chart] = [
        gain_against_loss(
            seeds.assign(model=seeds["label"]),
            "strategy",
            name="strategies",
            title="Strategies of fine-tuning: what they gain on Atlantis, and what they forget",
            what="strategy",
            plural="strategies",
            over=f" and over {one}",
        ),
        gain_against_loss(
            compared.models,
            "strategy",
            name="strategies_by_model",
            title="Strategies of fine-tuning, model by model",
        ),
    ]
    if len(compared.courses):
        charts.append(strategy_courses(compared.courses, one))
    return charts


def strategy_courses(courses: pd.DataFrame, models: str) -> Curves:
    """When the forgetting and the gain happen, by share of the training."""
    table = pd.concat(
        [
            mean_of_seeds(courses).assign(seed="mean", is_mean=True),
            courses.assign(is_mean=False, n=1),
        ],
        ignore_index=True,
    )
    table["series"] = table["strategy"].astype(str) + " seed " + table["seed"].astype(str)
    table["percent"] = 100 * table["share"]
    table["panel"] = pd.Categorical(table["split"].map(PANELS), list(PANELS.values()))
    table["strategy"] = pd.Categorical(table["strategy"], STRATEGIES)
    return Curves(
        name="strategies_course",
        title="Strategies of fine-tuning: when forgetting and gain happen",
        lines=(
            f"Means over {models} and the seven tasks, from step 0 on. Left: how far the cities "
            "that the base knows are forgotten (below 0). Right: what is gained on Atlantis.",
            "Thick: the mean of the seeds. Thin: single seeds.",
        ),
        table=table.sort_values(
            ["panel", "strategy", "is_mean"], ascending=[True, True, False], kind="stable"
        ),
        x="percent",
        y="normalised",
        series="series",
        thick="is_mean",
        x_label="share of the fine-tuning's steps (%)",
        y_label="mean of the seven tasks (no unit)",
        group="strategy",
        facet="panel",
        columns=2,
        size=(4.6, 3.4),
        hover=("strategy", "seed", "percent", "normalised", "n"),
        notes=(
            f"{courses['seed'].nunique()} seeds; steps of another strategy may cost more: "
            "replay has more of them, as a batch holds fewer new rows",
        ),
    )
