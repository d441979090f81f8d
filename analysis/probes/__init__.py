"""How well a linear probe predicts the positions of cities from the hidden states of models.

The probe is fitted on world cities and evaluated on held-out ones and on Atlantis. Models that were
fine-tuned on distance are compared with those that were not. The analysis also draws principal
components of the cities, and compares their shape between models.
"""

from itertools import product
from typing import Any

import pandas as pd

from analysis.command import analysis_command
from analysis.options import Options, listed
from analysis.probes import charts
from analysis.probes.models import by_model, disparities, probe_models, shown_models
from analysis.result import Part, Result
from analysis.store import extractions
from analysis.store.evaluations import PRETRAIN
from analysis.store.missing import missing_table, with_reasons
from analysis.store.selection import NothingThere, Trained, nothing_of, used_runs
from analysis.store.source import Source
from worldrep.names import FINETUNINGS, NO_FT, ModelName, parse_model
from worldrep.tracking import StoredRun

NAME = "probes"


def probes(source: Source, options: Options, layer: str = extractions.DEFAULT) -> Result:
    """Return probe errors, maps of the cities and Procrustes disparities of pt1 and its models.

    layer: `default` or a number. Raises InputError for another one, NothingThere when there are no
    representations.
    """
    extracted, seeds, trained = _read_extracted(source, options, extractions.parse_layer(layer))
    found, faults = probe_models(extracted)
    if found.table.empty:
        reason = next(iter(faults.values()))
        raise NothingThere(f"{source.place}: no representations that can be used; {reason}")
    table, models, guessed = found.table, by_model(found.table), found.guessed
    seed = int(table["seed"].mode()[0])  # the one with most models
    shown = shown_models(table[table["seed"] == seed])
    parts: list[Part] = [
        charts.histogram(table, models, guessed["atlantis_error"]),
        charts.error_scatter(table, models, guessed),
        charts.model_intervals(table, models, guessed["atlantis_error"], seeds),
        charts.position_map(found, shown, seed),
        charts.component_map(found, shown, seed),
    ]
    tables = {"probes": table}
    matrices, largest, pairs = disparities(found)
    if len(models) > 1:
        parts.append(charts.disparity_panel(matrices, largest))
        tables |= {f"procrustes_seed{seed}": matrix for seed, matrix in matrices.items()}
    used, unusable = extracted.runs.loc[table["run_id"]], extracted.runs.loc[[*faults]]

    def why(run: Any) -> tuple[str, str]:
        again = trained.to_extract(parse_model(run.model), run.seed)
        return faults[run.Index], trained.again(run.Index, again)

    gaps = with_reasons(unusable, why)
    absent = [*extracted.absent, *gaps.to_dict("records")]
    return Result(
        name=NAME, options=options, seeds=seeds, parts=parts,
        missing=missing_table(absent).assign(matrix=NAME), runs_used=used_runs(used, used.index),
        caveats=[*extracted.caveats, *_base_caveats(used), *_caveats(table, seeds)], tables=tables,
        statistics={"guessed": guessed, "procrustes_pairs": pairs},
        tags={"pretrain": PRETRAIN, "layer": layer},
    )  # fmt: skip


def _read_extracted(
    source: Source, options: Options, layer: int | str
) -> tuple[extractions.Extractions, tuple[int, ...], Trained]:
    names = options.names | {"pretrain": PRETRAIN}
    trained = Trained.read(source, options, pretrain=PRETRAIN)
    runs = source.runs(stage="extract", **names)
    if not runs:
        raise nothing_of("representations", options.in_words, source, "extract")
    extractions.check_depth(layer, runs)
    held = {
        int(run.tag("seed"))
        for run in runs
        if layer == extractions.DEFAULT or layer in extractions.layers_of(run)
    }
    seeds = options.seeds or tuple(sorted(held))
    if not held & set(seeds):
        raise NothingThere(f"{source.place} has no representations{_held(runs, options, layer)}")
    # A model that some of the seeds have is missing in the others.
    known = [run for run in (*trained.runs.values(), *runs) if int(run.tag("seed")) in seeds]
    fts = {run.tag("ft") for run in known} | {NO_FT}
    ordered = [ft for ft in (NO_FT, *FINETUNINGS) if ft in fts]
    models = [ModelName(PRETRAIN, ft, options.width).tuned_by(options.strategy) for ft in ordered]
    found = extractions.read_extractions(
        source, trained, product(models, seeds), layer=layer, **names
    )
    return found, seeds, trained


def _held(runs: list[StoredRun], options: Options, layer: int | str) -> str:
    seeds = listed(int(run.tag("seed")) for run in runs)
    layers = listed(layer for run in runs for layer in extractions.layers_of(run)) or "none"
    asked = "" if layer == extractions.DEFAULT else f" of layer {layer}"
    hint = "" if layer == extractions.DEFAULT else f"; `-e extract -P layers={layer}` makes them"
    asked += f" for seeds {listed(options.seeds)}" if options.seeds else ""
    return f"{asked} ({options.in_words}): it has layers {layers} of seeds {seeds}{hint}"


def _base_caveats(used: pd.DataFrame) -> list[str]:
    """Name the models that did not start from the base of their seed that is shown."""
    bases = {run.seed: run.model_run_id for run in used.itertuples() if run.ft == NO_FT}
    return [
        f"{run.model} seed {run.seed} started from base {run.base_run_id}, not from the "
        f"{bases[run.seed]} that is shown"
        for run in used.itertuples()
        if run.ft != NO_FT and run.seed in bases and run.base_run_id not in ("", bases[run.seed])
    ]


def _caveats(table: pd.DataFrame, seeds: tuple[int, ...]) -> list[str]:
    first, features, n = table.iloc[0], table["n_features"].max(), table["model"].value_counts()
    absent = sorted(set(seeds) - set(table["seed"]))
    caveats = [f"seed {seed} has no representations" for seed in absent]
    if len(seeds) == 1:
        caveats.append(f"one seed only ({seeds[0]}): no spread over seeds")
    elif partial := int((n < len(seeds)).sum()):
        caveats.append(
            f"{partial} of {len(n)} models have representations of some of the {len(seeds)} seeds "
            "only: their means rest on those"
        )
    if features >= first["n_fitted"] - 1:
        caveats.append(
            f"the probe has {features} features and is fitted on {first['n_fitted']} cities: it "
            "goes exactly through these (least norm), so only held-out errors mean anything; "
            f"the {first['n_baseline']} held-out cities are few"
        )
    return [
        *caveats,
        "models of one seed share their base, and models share tasks: they are not independent, "
        "as the Mann-Whitney test takes them to be",
        "each model was shown the cities in the prompt of its own first task: representations "
        "differ by that as well",
    ]


main = analysis_command(NAME, probes, layer="A layer, or default.")
