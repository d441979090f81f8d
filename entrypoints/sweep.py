"""Search settings of a fine-tuning or a pretraining with Optuna."""

from typing import Any

import click

from entrypoints import command as cli
from worldrep.names import NO_FT, STRATEGIES, ModelName
from worldrep.settings import parse_seeds, whole_number


@cli.command("sweep")
@cli.option("ft", None, "Fine-tuning to search, such as ftwb2-13; default: search the pretraining.")
@cli.option("pretrain", "pt1", "The base's mixture, or the one that is searched.")
@cli.width_option
@cli.option("strategy", "plain", f"What keeps the base's knowledge: {', '.join(STRATEGIES)}.")
@cli.option("n_trials", "30", "Trials of the sweep in all; more than before adds the difference.")
@cli.option("space", "default", "YAML file with the settings to search.")
@cli.option("objective", "transfer", "transfer, trained, retention, or as atlantis/angle/mean.")
@cli.option("sampler", "tpe", "tpe or random.")
@cli.option("pruner", "auto", "median, hyperband or none; auto: median for one objective.")
@cli.option("name", None, "By which the sweep is found again; default: made from the above.")
@cli.option("storage", None, "Of Optuna: a file or a database URL; default: sweeps/NAME.journal.")
@cli.option("apply", None, "best: do a study of the best settings over seeds; or a trial's number.")
@cli.option("seeds", "1,2,3", "Seeds that the best settings are applied to.")
@cli.executor_options
@cli.name_options
@cli.positional("ft")
def main(ft: str | None, pretrain: str, width: str, strategy: str, **options: Any) -> None:
    """Do the trials that a sweep lacks; interrupted, the same command goes on."""
    settings = cli.settings_from(ModelName(pretrain, ft or NO_FT, width, strategy), options)
    from worldrep.executors import ExecutorOptions
    from worldrep.sweeps.definition import Sweep, default_address
    from worldrep.sweeps.drive import MOST_TRIALS, apply_trial, check_apply, run_sweep
    from worldrep.sweeps.report import best_trials

    n_trials = whole_number("n_trials", options["n_trials"], 1, MOST_TRIALS)
    seeds = parse_seeds(options["seeds"])
    sweep = Sweep.asked_for(settings, options, cli.overrides_from(options))
    apply = options["apply"]
    check_apply(apply, seeds, sweep)
    executor, store = ExecutorOptions.parse(options), cli.connect(options)
    storage = options["storage"] or default_address(sweep.name)
    run_id, study = run_sweep(store, sweep, executor, storage, n_trials, **cli.asked(options))
    store.point_launch(run_id)
    for trial in best_trials(study):
        click.echo(f"best: trial {trial.number}: {sweep.outcome(trial)}")
    if apply:
        applied = apply_trial(store, sweep, study, apply, executor, seeds)
        click.echo(f"study {applied}: done")
    click.echo(f"{sweep.title}: done, run {run_id}; store: {store.address}")


if __name__ == "__main__":
    main()
