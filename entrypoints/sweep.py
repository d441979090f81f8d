"""Search settings of a fine-tuning or a pretraining with Optuna."""

from __future__ import annotations

from typing import Any

import click

from entrypoints.command import (
    command,
    connect,
    executor_options,
    given,
    name_options,
    option,
    override_options,
    overrides_from,
    parse_count,
    settings_from,
)
from worldrep.names import STRATEGIES, ModelName


@command
@option(
    "ft", "none", "Fine-tuning whose settings are searched, such as ftwb2-13; none: pretrain's."
)
@option("pretrain", "pt1", "The base's mixture, or the one that is searched.")
@option("width", "base", "Model size: base, wide, narrow, wider.")
@option("strategy", "plain", f"What keeps the base's knowledge: {', '.join(STRATEGIES)}.")
@option("n_trials", "30", "Trials of the sweep in all; more than before adds the difference.")
@option("space", "default", "YAML file with the settings to search.")
@option("objective", "transfer", "transfer, trained, retention, or such as atlantis/angle/mean.")
@option("sampler", "tpe", "tpe or random.")
@option("pruner", "auto", "median, hyperband or none; auto: median for one objective.")
@option("name", "none", "By which the sweep is found again; none: made from the above.")
@option("storage", "none", "Of Optuna: a file, or a database's address; none: sweeps/NAME.journal.")
@option("apply", "none", "best: train, evaluate, extract the best settings over seeds; or a trial.")
@option("seeds", "1,2,3", "Seeds that the best settings are applied to.")
@executor_options
@name_options
@override_options
def main(ft: str, pretrain: str, width: str, strategy: str, **options: Any) -> None:
    """Do the trials that a sweep lacks; interrupted, the same command goes on."""
    settings = settings_from(ModelName(pretrain, ft, width, strategy), options)
    from worldrep.executors import Choice
    from worldrep.studies.definition import parse_seeds
    from worldrep.sweeps.definition import Sweep
    from worldrep.sweeps.drive import apply_trial, check_apply, run_sweep
    from worldrep.sweeps.report import best_trials
    from worldrep.sweeps.storage import default_address

    n_trials, seeds = parse_count("n_trials", options["n_trials"]), parse_seeds(options["seeds"])
    sweep = Sweep.asked_for(settings, options, overrides_from(options))
    apply = given(options["apply"])
    check_apply(apply, seeds, sweep)
    choice, store = Choice.parse(options), connect(options)
    storage = given(options["storage"]) or default_address(sweep.name)
    run_id, study = run_sweep(store, sweep, choice, storage, n_trials, launched=True)
    store.point_launch(run_id)
    for trial in best_trials(study):
        click.echo(f"best: trial {trial.number}: {sweep.outcome(trial)}")
    if apply:
        applied = apply_trial(store, sweep, study, apply, choice, seeds)
        click.echo(f"study {applied}: done")
    click.echo(f"{sweep.title}: done, run {run_id}; store: {store.address}")


if __name__ == "__main__":
    main()
