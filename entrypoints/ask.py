"""Ask a trained model questions, and see the right answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from entrypoints import command as cli
from worldrep.errors import InputError
from worldrep.names import ModelName
from worldrep.text_files import MEGABYTE, read_text

if TYPE_CHECKING:
    from worldrep.stages.models import TrainedModel


@cli.command("ask", recorded=False)
@click.argument("questions", nargs=-1, metavar="[MODEL] QUESTIONS...")
@click.option("--file", type=click.Path(path_type=Path), help="File with one question a line.")
@click.option(
    "--list-cities",
    is_flag=True,
    help="List the cities of the model's world, or of a scale's; ask nothing.",
)
@cli.model_options
@cli.name_options
def main(
    questions: tuple[str, ...],
    file: Path | None,
    list_cities: bool,
    checkpoints: str,
    **options: Any,
) -> None:
    """Ask a trained MODEL QUESTIONS such as "dist(Tokyo,Lagos)=" or "compass(c_12,Atlantis 1)=".

    Cities are given by name or id. The answers are shown beside the right ones, with their scores.
    "where(Tokyo)" shows the longitude and latitude that a linear probe reads from the model's
    hidden states, as `extract` draws them.
    """
    if options["model"] is options["run_id"] is None and questions and "(" not in questions[0]:
        options["model"], *rest = questions
        questions = tuple(rest)
    if list_cities:
        show_cities(questions, options)
        return
    if file:
        lines = read_text(file, "file=", MEGABYTE).splitlines()
        questions += tuple(line for line in lines if line.strip())
    if not questions:
        raise InputError('ask a question, such as "dist(Tokyo,Lagos)=", or name a file of them')
    model = trained_model(options, checkpoints)
    from worldrep.data.sets import learns_atlantis
    from worldrep.data.world import ATLANTIS
    from worldrep.evaluation.questions import Question, cities_in_words, parse_question
    from worldrep.evaluation.representations import Request, extract, probe_positions
    from worldrep.evaluation.suites import generate

    world, settings = model.maker.world, model.settings
    asked = [parse_question(text, world) for text in questions]
    request = Request.parse(settings)
    of_tasks = [question for question in asked if isinstance(question, Question)]
    longest = max((question.task.longest for question in of_tasks), default=0) + 1  # with <eos>
    for step, weights in model.weights():
        click.echo(f"{model.run.name}, step {step:,}, run {model.run.id}")
        answers = iter(generate(weights, [question.text for question in of_tasks], longest))
        if len(of_tasks) < len(asked):
            (states,) = extract(weights, world, request, settings.is_plain).values()
            probe = probe_positions(states, world)
        for question in asked:
            if isinstance(question, Question):
                answer = next(answers)
                judged = question.judged(answer)
            else:
                answer, judged = question.judged(probe)
            click.echo(f"{question.text}{answer}  {judged}")
            unknown = question.cities[question.cities["region"] == ATLANTIS]
            known = learns_atlantis(settings) or unknown.empty
            trained = "trained on all" if known else f"not trained on {cities_in_words(unknown)}"
            click.echo(f"  {cities_in_words(question.cities)}: the model was {trained}")


def trained_model(options: dict[str, Any], checkpoints: str) -> TrainedModel:
    """Load the model that the options name."""
    find = cli.model_named(options)
    store = cli.connect(options, create=False)
    from worldrep.stages.models import TrainedModel

    return TrainedModel.load(store, find(store), checkpoints)


def show_cities(questions: tuple[str, ...], options: dict[str, Any]) -> None:
    """Print id, name, longitude, latitude and region of each city of a model's world, or a scale's.

    Raises InputError if there is a question, too.
    """
    from worldrep.data.sets import maker_of

    if questions:
        raise InputError("ask a question or list the cities, not both")
    if options["model"] or options["run_id"]:
        maker = trained_model(options, "last").maker
    else:
        maker = maker_of(cli.settings_from(ModelName("pt1"), options))
    table = maker.world.cities.copy()
    table["id"] = "c_" + table["city_id"]
    table["longitude"], table["latitude"] = table["x"] / 10, table["y"] / 10
    click.echo(table[["id", "name", "longitude", "latitude", "region"]].to_string(index=False))


if __name__ == "__main__":
    main()
