"""Ask a trained model questions, and see the right answers."""

from pathlib import Path
from typing import Any

import click

from entrypoints import command as cli
from worldrep.errors import InputError
from worldrep.text_files import MEGABYTE, read_text


@cli.command("ask", recorded=False)
@click.argument("questions", nargs=-1, metavar="[MODEL] QUESTIONS...")
@click.option("--file", type=click.Path(path_type=Path), help="File with one question a line.")
@cli.model_options
@cli.name_options
def main(questions: tuple[str, ...], file: Path | None, checkpoints: str, **options: Any) -> None:
    """Ask a trained MODEL QUESTIONS such as "dist(Paris,Tokyo)=" or "compass(c_12,Atlantis 1)=".

    Cities are given by name or id. The answers are shown beside the right ones, with their scores.
    """
    if options["model"] is options["run_id"] is None and questions and "(" not in questions[0]:
        options["model"], *rest = questions
        questions = tuple(rest)
    if file:
        lines = read_text(file, "file=", MEGABYTE).splitlines()
        questions += tuple(line for line in lines if line.strip())
    if not questions:
        raise InputError('ask a question, such as "dist(Paris,Tokyo)=", or name a file of them')
    find = cli.model_named(options)
    store = cli.connect(options)
    from worldrep.data.sets import learns_atlantis
    from worldrep.evaluation.questions import Question
    from worldrep.evaluation.suites import generate
    from worldrep.stages.models import TrainedModel

    run = find(store)
    model = TrainedModel.load(store, run, checkpoints)
    asked = [Question.parse(text, model.maker.world) for text in questions]
    longest = max(question.task.longest for question in asked) + 1  # with <eos>
    for step, weights in model.weights():
        click.echo(f"{run.name}, step {step:,}, run {run.id}")
        answers = generate(weights, [question.text for question in asked], longest)
        for question, answer in zip(asked, answers, strict=True):
            click.echo(f"{question.text}{answer}  {question.judged(answer)}")
            new = "" if learns_atlantis(model.settings) else question.atlantis_in_words
            known = f"the model was not trained on {new}" if new else "the model was trained on all"
            click.echo(f"  {question.in_words}: {known}")


if __name__ == "__main__":
    main()
