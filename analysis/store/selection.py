"""Which models an analysis is about, and which of several runs of a model is used."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import pandas as pd

from analysis.options import ALL, Options
from analysis.store.source import Source
from worldrep.errors import InputError, StateError
from worldrep.names import (
    FINETUNINGS,
    NO_FT,
    PLAIN,
    PRETRAININGS,
    STRATEGIES,
    ModelName,
    parse_model,
)
from worldrep.scales import changed_settings, resolve
from worldrep.settings import SHARED_GROUPS, TRAINING_STAGES, from_params, parse_names
from worldrep.stages.commands import command_line
from worldrep.stages.plan import LAST as LAST
from worldrep.stages.plan import TrainingPlan
from worldrep.studies import Definition
from worldrep.tracking import StoredRun

KEYS = ["model", "seed"]
_USUAL = {"strategy": PLAIN, "width": "base", "world": "standard"}  # not written in commands
COLUMNS = [
    "run_id", "run_name", "model", "ft", "seed", "ended", "model_run_id", "base_run_id",
    "model_id", "current",
]  # fmt: skip
USED_COLUMNS = [
    "run_name", "model", "seed", "why", "ended", "model_run_id", "base_run_id", "current",
]  # fmt: skip


class NothingThere(StateError):
    """The store can be read, but has nothing of the kind that is asked for."""


def nothing_of(kind: str, of: str, source: Source, *stages: str) -> NothingThere:
    """Return an error that says what the store has of some stages instead of a kind of runs."""
    known = "; ".join(filter(None, map(source.held, stages)))
    has = f"it has {known}" if known else "it has none at all; `worldrep demo` makes some"
    return NothingThere(f"{source.place} has no {kind} of {of}: {has}")


def named_models(text: str, options: Options) -> tuple[ModelName, ...]:
    """Parse `pt1,pt1_ftwb1-1..7` to models of the options' width and strategy, and `all` to ().

    Raises InputError for an unknown name, or one with a width or a strategy of its own.
    """
    if text.strip() == ALL:
        return ()
    names = parse_names(text)
    width, strategy = (options.width,), (options.strategy,)  # names and ranges as in a study
    study = Definition(f"models={text}", names, widths=width, strategies=strategy)
    return in_order(settings.model_name for settings in study.resolved)


def choose_models(
    runs: Sequence[StoredRun],
    asked: Sequence[ModelName],
    kind: str,
    options: Options,
    source: Source,
) -> tuple[tuple[ModelName, ...], tuple[int, ...], list[str]]:
    """Return the models and seeds asked for, or all that have a run (a `kind`); and caveats.

    asked: empty for all models. Raises NothingThere if no run is of these models and seeds.
    """
    known = {(known_model(r.tag("model")), int(r.tag("seed")), r.tag("model")) for r in runs}
    strange = {name for model, _, name in known if not model}
    pairs = {(model, seed) for model, seed, _ in known if model}
    wanted = {
        (model, seed)
        for model, seed in pairs
        if (not asked or model in asked) and (not options.seeds or seed in options.seeds)
    }
    models = in_order(model for model, _ in wanted or pairs)
    seeds = tuple(sorted({seed for _, seed in wanted or pairs}))
    if not wanted:
        raise NothingThere(
            f"{source.place} has no finished {kind} of the models and seeds asked for "
            f"({options.in_words}): it has {', '.join(map(str, models)) or 'none that it knows'} "
            f"with seeds {', '.join(map(str, seeds))}"
        )
    left_out = "left out, as this version does not know their names: " + ", ".join(sorted(strange))
    return tuple(asked) or models, options.seeds or seeds, [left_out] if strange else []


def known_model(text: str) -> ModelName | None:
    """Parse the model tag of a run; None if this version does not know the name."""
    try:
        return parse_model(text)
    except InputError:
        return None


def in_order(models: Iterable[ModelName]) -> tuple[ModelName, ...]:
    """Return each model once, every base before its fine-tunings."""
    places = [*PRETRAININGS, NO_FT, *FINETUNINGS, *STRATEGIES].index
    return tuple(sorted(set(models), key=lambda m: [*map(places, (m.pretrain, m.ft, m.strategy))]))


def family_of(model: ModelName) -> str:
    """Return the family of a model: `pt1`, `pt1-X`, `pt2`, `ftwb1` or `pt2_ftwb1`."""
    stem, _, number = model.pretrain.partition("-")
    base = f"{stem}-X" if stem == "pt1" and number else stem
    if model.ft == NO_FT:
        return base
    ft = model.ft.partition("-")[0]
    return ft if model.pretrain == "pt1" else f"{base}_{ft}"


def training_id(run: StoredRun) -> str:
    """Return the run id of the training that a run belongs to; of a training, its own."""
    return run.id if run.tag("stage") in TRAINING_STAGES else run.tag("model_run_id")


def run_table(runs: Iterable[StoredRun], current: Collection[str]) -> pd.DataFrame:
    """Return one row per run in the same order, with COLUMNS, indexed by run_id.

    current: run ids of trainings; the column says whether the run's training is among them.
    """
    rows = [
        (run.id, run.name, run.tag("model"), run.tag("ft"), int(run.tag("seed")),
         pd.Timestamp(run.ended, unit="s", tz="UTC").floor("s"), training_id(run),
         run.tag("base_run_id"), run.model_id, training_id(run) in current)
        for run in runs
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=COLUMNS).set_index("run_id")
    return table.astype({"seed": int, "current": bool})


def choose(
    runs: pd.DataFrame, kind: str, *, keys: Sequence[str] = KEYS, most_layers: bool = False
) -> pd.DataFrame:
    """Add the columns chosen and why, and sort: one run of each model and seed is chosen.

    A run of the current model is preferred, then, if asked for, one with most layers, then the
    newest. runs: of `run_table`, the newest first; kind: what a run is called.
    """
    runs = runs.assign(n_layers=runs["layers"].map(len) if most_layers else 0)
    runs = runs.sort_values(["current", "n_layers"], ascending=False, kind="stable")
    of_model = runs.groupby([*keys], sort=False)
    least = runs.groupby([*keys, "current"], sort=False)["n_layers"].transform("min")
    n = runs.groupby([*keys, "current", "n_layers"], sort=False)["ended"].transform("size")
    why = "the newest of " + n.astype(str) + f" finished {kind}s"
    why = why.where(n > 1, f"the only finished {kind}")
    why = why.mask(runs["n_layers"] > least, why + " with most layers")
    preferred = runs["current"] & ~of_model["current"].transform("all").astype(bool)
    why = why.mask(preferred, why + " of the model as its name stands today")
    chosen = of_model.cumcount() == 0
    return runs.drop(columns="n_layers").assign(chosen=chosen, why=why.where(chosen, "not used"))


def used_runs(runs: pd.DataFrame, used: Collection[str]) -> pd.DataFrame:
    """Return the runs with these ids from a table of `choose`, with USED_COLUMNS."""
    own = runs.loc[sorted(set(used) & set(runs.index)), USED_COLUMNS]
    return own.sort_values(["seed", "model"])


@dataclass(frozen=True)
class Trained:
    """Finished trainings, and the commands for what is missing.

    runs: by run id, the newest of each stage first; current: run ids of the trainings whose
    fingerprint matches the current code and settings, which a command finds by the model's name;
    training_of: (model, seed) -> run id of the training that represents the model.
    """

    options: Options
    experiment: str
    runs: Mapping[str, StoredRun]
    current: Collection[str]
    training_of: Mapping[tuple[str, int], str]

    @classmethod
    def read(cls, source: Source, options: Options, **names: str) -> Self:
        """Read the trainings with the options' scale, width and world, and with further tags."""
        names |= options.names
        found = {
            run.id: run for stage in TRAINING_STAGES for run in source.runs(stage=stage, **names)
        }
        current = {run_id for run_id, run in found.items() if _is_current(run, options)}
        table = choose(run_table(found.values(), current), "training")
        chosen = table[table["chosen"]].reset_index()
        training_of = chosen.set_index(KEYS)["run_id"].to_dict()
        return cls(options, source.store.experiment_name, found, current, training_of)

    def to_train(self, model: ModelName, seed: int) -> str:
        """Train a model with the settings of the nearest stored one, its base first if needed."""
        names = {"pretrain": model.pretrain}
        if model.ft != NO_FT:
            further = names if model.pretrain != "pt1" else {}
            names = {"ft": model.ft, "strategy": model.strategy} | further
        entry = "pretrain" if model.ft == NO_FT else "finetune"
        place = {"scale": self.options.scale, "world": self.options.world}
        own = place | self._nearest_settings(model, seed)
        return self._run(entry, **names, width=model.width, seed=seed, **own)

    def to_evaluate(
        self, model: ModelName, seed: int, entry: str = "evaluate", **parameters: object
    ) -> str:
        """Evaluate a model, after its training if it is not trained."""
        training = self.training_of.get((str(model), seed))
        if training and training not in self.current:
            return self._run(entry, run_id=training, **parameters)
        parameters |= {"scale": self.options.scale, "world": self.options.world}
        parameters |= {} if training else self._nearest_settings(model, seed)
        command = self._run(entry, model=model, seed=seed, **parameters)
        return command if training else f"{self.to_train(model, seed)} && {command}"

    def _nearest_settings(self, model: ModelName, seed: int) -> dict[str, Any]:
        """Return the settings, and the run of the base, that the nearest stored models have.

        World, rows and model are those of its base, else of the nearest model; those of the
        training are of the nearest model of its kind. Only what is not usual is returned.
        """
        stored = [self.runs[run_id] for run_id in self.training_of.values()]
        base = self._base_of(model, seed, stored) if model.ft != NO_FT else None
        like = [run for run in stored if _kind(run.tag("ft")) == _kind(model.ft)]
        shared = self._nearest([base] if base else stored, model, seed)
        found = _changed(shared, SHARED_GROUPS)
        found |= _changed(self._nearest(like, model, seed), ("training", "ft_rows", "strategy"))
        optimizer = {key: found[key] for key in found if key == "optimizer"}
        usual = resolve(model, scale=self.options.scale, overrides=optimizer)
        found = {name: value for name, value in found.items() if usual.reads(name)}
        return found | ({"base_run": base.id} if base and base.id not in self.current else {})

    def _base_of(
        self, model: ModelName, seed: int, stored: Sequence[StoredRun]
    ) -> StoredRun | None:
        """Return the base of the nearest stored models, None if there is none yet."""
        own = str(model.base), str(seed)
        tuned = [run for run in stored if (_base_name(run), run.tag("seed")) == own]
        known = [run for run in tuned if run.tag("base_run_id") in self.runs]
        if nearest := self._nearest(known, model, seed):
            return self.runs[nearest.tag("base_run_id")]
        return self.runs.get(self.training_of.get((str(model.base), seed), ""))

    def _nearest(self, runs: Sequence[StoredRun], model: ModelName, seed: int) -> StoredRun | None:
        """Return the training most like a model: by kind, seed and names; the newest of equals."""

        def likeness(run: StoredRun) -> tuple[object, ...]:
            names = [run.tag(name) == getattr(model, name) for name in ("strategy", "pretrain")]
            same_kind = _kind(run.tag("ft")) == _kind(model.ft)
            same_seed, usual = run.tag("seed") == str(seed), run.id in self.current
            return same_kind, same_seed, *names, usual, run.ended

        return max(runs, key=likeness, default=None)

    def to_extract(self, model: ModelName, seed: int, **parameters: object) -> str:
        """Extract a model's representations, after its training if it is not trained."""
        return self.to_evaluate(model, seed, "extract", **parameters)

    def to_evaluate_run(self, run_id: str, **parameters: object) -> str:
        """Evaluate the model of one training run."""
        return self._run("evaluate", run_id=run_id, **parameters)

    def to_evaluate_base(self, model: ModelName, seed: int, base_run_id: str) -> str:
        """Evaluate the base of a model. base_run_id: empty if it is not known."""
        return (
            self.to_evaluate_run(base_run_id) if base_run_id else self.to_evaluate(model.base, seed)
        )

    def again(self, run_id: str, command: str) -> str:
        """Delete a damaged run, then compute it again by a command."""
        return f"mlflow runs delete --run-id {run_id} && {command}"

    def _run(self, entry: str, **parameters: object) -> str:
        shown = {name: value for name, value in parameters.items() if value != _USUAL.get(name)}
        return command_line(entry, shown, self.experiment)


def _kind(ft: str) -> str:
    """Return what a training has in common with others: it is of a base, or of a family."""
    return ft.partition("-")[0]


def _base_name(run: StoredRun) -> str:
    model = known_model(run.tag("model"))
    return str(model.base) if model else ""


def _changed(run: StoredRun | None, groups: Iterable[str]) -> dict[str, Any]:
    """Return the settings of some groups in which a training differs from its scale's."""
    if run is None:
        return {}
    try:
        settings = from_params(run.params)
    except InputError:  # of another version
        return {}
    return {k: v for k, v in changed_settings(settings).items() if k in settings.group(*groups)}


def _is_current(run: StoredRun, options: Options) -> bool:
    model = known_model(run.tag("model"))
    if model is None:
        return False
    named = _plan(model, options.scale, options.world, int(run.tag("seed")))
    return run.fingerprint == named.fingerprint


@lru_cache(maxsize=4096)
def _plan(model: ModelName, scale: str, world: str, seed: int) -> TrainingPlan:
    """Return the plan of a training without overrides, by the current code."""
    settings = resolve(model, scale=scale, world=world, seed=seed)
    base = _plan(model.base, scale, world, seed) if settings.is_finetuning else None
    return TrainingPlan.of(settings, base)
