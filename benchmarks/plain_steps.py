"""The steps of a model as a loop of a shell runs them: a process for each, which calls MLflow.

What a step logs is written down beforehand by the simulated step of the same kind, so the process
does nothing but import MLflow, log the same numbers and files, and end.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldrep.settings import Settings

PROGRAM = """
import json, sys
from pathlib import Path
import mlflow
step = json.loads(Path(sys.argv[1], "step.json").read_text())
mlflow.set_experiment("plain")
with mlflow.start_run(run_name=step["name"], tags=step["tags"]):
    mlflow.log_params(step["params"])
    for number, values in step["numbers"]:
        mlflow.log_metrics(values, step=number)
    mlflow.log_artifacts(sys.argv[1])
"""


class Written:
    """Stands for a run: keeps in a folder what is logged."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.numbers = folder, list[tuple[int, dict[str, float]]]()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.numbers.append((step, dict(values)))

    def artifact(self, path: Path) -> None:
        shutil.copy(path, self.folder)

    def artifacts(self, source: Path, folder: str) -> None:
        shutil.copytree(source, self.folder / folder)


def write_steps(settings: Settings, folder: Path) -> list[Path]:
    """A folder for each step of a model, with all that it logs."""
    from benchmarks.simulated import KINDS

    steps = []
    for kind, simulate in KINDS.items():
        run = Written(folder / kind)
        run.folder.mkdir(parents=True)
        simulate(run, settings)
        content: dict[str, Any] = {"name": settings.run_name(kind), "numbers": run.numbers}
        content |= {"params": settings.as_dict(), "tags": settings.labels}
        (run.folder / "step.json").write_text(json.dumps(content))
        steps.append(run.folder)
    return steps


def seconds_of(step: Path) -> float:
    """How long the process of a written step takes."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(step)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - begun
