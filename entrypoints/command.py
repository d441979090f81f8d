"""What the commands share. It imports only light modules, so that `--help` answers at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from functools import partial, reduce, wraps
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from worldrep.errors import InputError, one_sentence, shown
from worldrep.errors import check_name as check_name
from worldrep.names import ModelName, parse_model
from worldrep.scales import resolve
from worldrep.settings import FIELDS, OVERRIDABLE, SCALES, VARIANTS, Settings, parse_value

if TYPE_CHECKING:
    from worldrep.tracking import Store, StoredRun

Decorator = Callable[[Any], Any]
EXPERIMENT = "worldrep.experiment"  # of the store that the command is connected to
NOT_GIVEN = "none"  # what MLproject passes for an option without a default


class Command(click.Command):
    """A command whose help lists the settings after the other options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = [
            (p.name, found) for p in self.get_params(ctx) if (found := p.get_help_record(ctx))
        ]
        for title, are_settings in (
            ("Options", False),
            ("Settings (default: those of the scale)", True),
        ):
            if rows := [row for name, row in records if (name in OVERRIDABLE) is are_settings]:
                with formatter.section(title):
                    formatter.write_dl(rows)


def command(name: str, *, recorded: bool = True) -> Callable[[Callable[..., None]], click.Command]:
    """Decorate a function as a command whose errors are one sentence with the right exit code.

    recorded: its work is in the store and goes on after an interrupt.
    """
    decorate = click.command(name, Command, context_settings={"max_content_width": 100})

    def goes_on() -> str:
        kept = "finished work and the last checkpoint of a training are kept; it goes on with"
        experiment = click.get_current_context().meta.get(EXPERIMENT)
        return f"{kept} {typed(name, experiment) if experiment else 'the same command'}"

    sentence = partial(one_sentence, goes_on=goes_on) if recorded else one_sentence
    return lambda function: decorate(sentence(function))


def positional(name: str) -> Decorator:
    """Let the value of an option stand without its name, as in `worldrep study exp1`."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def merged(*, value: str | None, **options: Any) -> None:
            context = click.get_current_context()
            if value is not None:
                if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                    raise InputError(f"{name} is given twice: {options[name]} and {value}")
                options[name] = context.params[name] = value
            function(**options)

        return click.argument("value", required=False, metavar=f"[{name.upper()}]")(merged)

    return decorate


def typed(entry: str, experiment: str, without: Collection[str] = ()) -> str:
    """Return the command that is running, of an entry point, without what is the default.

    without: options to leave out, too.
    """
    from worldrep.stages.commands import command_line

    context = click.get_current_context()
    left_out = {"experiment", "value", *without}
    given = {
        option.name: value
        for option in context.command.params
        if option.name not in left_out
        and (value := context.params[str(option.name)]) not in (None, option.default)
    }
    return command_line(entry, given, experiment)


def option(name: str, default: str | None, text: str) -> Decorator:
    """Make an option; NOT_GIVEN, which MLproject passes for one without a default, becomes None."""

    def value(context: click.Context, parameter: click.Parameter, typed: str) -> str | None:
        return None if default is None and typed == NOT_GIVEN else typed

    return click.option(
        f"--{name}", name, default=default, show_default=True, help=text, callback=value
    )


def _all(*options: Decorator) -> Decorator:
    """Combine options, listed by `--help` in this order."""
    return lambda function: reduce(lambda done, add: add(done), reversed(options), function)


_SETTINGS = {name: f"{FIELDS[name].metadata['help']}." for name in OVERRIDABLE}
experiment_option = option(
    "experiment", None, "MLflow experiment; default: the current one, else worldrep."
)
override_options = _all(
    *(click.option(f"--{k}", k, metavar="VALUE", help=text) for k, text in _SETTINGS.items())
)
yes_option = click.option(
    "--yes", "yes", is_flag=False, flag_value="true", default="false", metavar="[true]",
    help="Confirm work that takes longer than a day.",
)  # fmt: skip
shared_options = _all(experiment_option, yes_option, override_options)
name_options = _all(
    option("seed", "42", "Seed of the initial weights and of the order of rows."),
    option("scale", "mini", f"Complete settings: {', '.join(SCALES)}."),
    option("world", "standard", f"Where Atlantis lies: {', '.join(VARIANTS)}."),
    shared_options,
)
executor_options = _all(
    option("executor", "auto", "inline, processes, ray; auto: processes for several workers."),
    option("workers", "auto", "Steps at once; auto: one for each GPU or core (sweep: 1)."),
    option("cpus", "auto", "Cores of each worker; auto: an equal part of them (ray: 1)."),
    option("gpus", "auto", "GPUs of each worker, such as 0.25; auto: an equal part."),
    option("address", "local", "Of a Ray cluster: local, auto, HOST:PORT."),
)
width_option = option("width", "base", "Model size: base, wide, narrow, wider.")
model_options = _all(
    option(
        "model", None, "Name such as pt1_ftwb1-3, with --seed, --scale, --world; or models:/ URI."
    ),
    option("run_id", None, "Run id of a finished training, or models:/ URI, instead of a name."),
    option(
        "base_run", None, "Run id or models:/ URI of the base that the named model started from."
    ),
    option("checkpoints", "last", "last, all, or steps such as 100,200."),
)


def overrides_from(options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given a value."""
    given = [name for name in OVERRIDABLE if options.get(name) is not None]
    return {name: parse_value(name, options[name]) for name in given}


def settings_from(model: ModelName, options: dict[str, Any]) -> Settings:
    """Return the settings of a model from the command's options."""
    names = {"scale": options["scale"], "world": options["world"]}
    seed = parse_value("seed", options["seed"])
    return resolve(model, **names, seed=seed, overrides=overrides_from(options))


def parse_flag(name: str, value: str) -> bool:
    """Parse `true` or `false`: MLproject has no options without a value."""
    if value.lower() not in ("true", "false"):
        raise InputError(f"{name}={shown(value)} is not one of: true, false")
    return value.lower() == "true"


def asked(options: dict[str, Any]) -> dict[str, Any]:
    """Return what stages are told of a command: it is the work of `mlflow run`, and confirmed."""
    return {"launched": True, "confirmed": parse_flag("yes", options["yes"])}


def connect(options: dict[str, Any], *, create: bool = True) -> Store:
    """Connect to the store that the command works on. create: make it if there is none."""
    from worldrep.tracking import Store
    from worldrep.training.processes import check_environment

    check_environment()
    store = Store.connect(options["experiment"], create=create)
    click.get_current_context().meta[EXPERIMENT] = store.experiment_name
    return store


def announce(store: Store, run_id: str) -> None:
    """Print where the result is, and make the run of `mlflow run` point there."""
    if os.environ.get("RANK", "0") != "0":
        return
    store.point_launch(run_id)
    run = store.get(run_id)
    word = "already done" if run.ended < store.connected else "done"
    click.echo(f"{run.name}: {word}, run {run.id}")


def settings_named(options: dict[str, Any]) -> Settings | None:
    """Return the settings of a model that is named by `model`, None if by a run or a URI."""
    model = options["model"]
    if options["run_id"] is not None or model is None or model.startswith("models:/"):
        return None
    return settings_from(parse_model(model), options)


def model_named(options: dict[str, Any]) -> Callable[[Store], StoredRun]:
    """Check how a model is named, and return the function that finds it in a store.

    It is named by `run_id`, or by `model` together with the other names.
    """
    run_id, model = options["run_id"], options["model"]
    if run_id is None and model and model.startswith("models:/"):
        run_id, model = model, None
    if model and re.fullmatch("[0-9a-f]{32}", model):
        raise InputError(f"model={model} looks like a run id: use --run_id {model}")
    if settings := settings_named(options):

        def by_name(store: Store) -> StoredRun:
            from worldrep.stages.models import find_model

            return find_model(store, settings, options["base_run"])

        return by_name
    if run_id is None or model is not None:
        raise InputError(
            "name one model: --model pt1_ftwb1-3 (with --seed), or --run_id ID; with mlflow run: "
            "-P model=pt1_ftwb1-3"
        )
    overrides = [*overrides_from(options), *(["base_run"] if options["base_run"] else [])]
    if overrides:
        raise InputError(f"run_id has settings of its own; leave out {', '.join(overrides)}")

    def by_run(store: Store) -> StoredRun:
        from worldrep.stages.models import model_by_run_id

        return model_by_run_id(store, str(run_id))

    return by_run
