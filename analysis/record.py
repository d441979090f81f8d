"""What an analysis made, on its way into a folder, into the store and onto the screen."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pandas as pd
from mlflow.exceptions import MlflowException

from analysis.heatmap import SHOWN_CELLS
from analysis.matrices import Summary
from analysis.options import Options
from analysis.panels import Panel
from worldrep.digests import digest
from worldrep.errors import InputError, StateError
from worldrep.tracking import RunSpec, Store

STATISTICS, RUNS_USED = "statistics.json", "runs_used.csv"
SHOWN = 10


@dataclass(frozen=True)
class Result:
    """The outcome of an analysis.

    values: tidy table behind the matrices, with columns run_id, base_evaluation_id and command
    (which fills the cell if it is missing); missing: the missing cells of all matrices; runs: the
    evaluations that were read, by run id;
    caveats: sentences that a reader has to know; tags: for its run, without prefix.
    """

    name: str
    options: Options
    seeds: Sequence[int]
    panels: Sequence[Panel]
    values: pd.DataFrame
    missing: pd.DataFrame
    runs: pd.DataFrame
    caveats: Sequence[str]
    tags: Mapping[str, str]

    @property
    def runs_used(self) -> pd.DataFrame:
        """The evaluations behind the numbers, and why they were chosen."""
        used = {*self.values["run_id"], *self.values["base_evaluation_id"]} - {""}
        columns = ["run_name", "model", "seed", "why", "ended", "model_run_id", "base_run_id"]
        return self.runs.loc[sorted(used), columns].sort_values(["seed", "model"])

    @property
    def statistics(self) -> dict[str, dict[str, Summary]]:
        return {panel.name: panel.statistics for panel in self.panels}


def publish(
    result: Result, store: Store, *, parent: str | None = None, launched: bool = False
) -> Path:
    """Write all files to the folder that was asked for, record them as a run, and print a summary.

    The folder is returned. Nothing is written there before everything is made. Raises InputError
    when it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
        folder = Path(temporary)
        _write(result, store, folder)
        _copy(folder, result.options.out, result.name)
        try:
            run_id = _log(result, store, folder, parent, launched) if result.options.log else None
        except MlflowException as fault:
            raise StateError(
                f"the files are in {result.options.out}, but the store at {store.uri} did not "
                f"record them: {fault}"
            ) from None
    _print(result, run_id)
    return result.options.out


def _write(result: Result, store: Store, folder: Path) -> None:
    used = result.runs_used
    names = result.options.names | {"experiment": store.experiment_name}
    about = ", ".join(f"{name} {value}" for name, value in names.items())
    about += f"; {len(used)} evaluations, see {RUNS_USED}"
    if result.caveats:
        word = "caveat" if len(result.caveats) == 1 else "caveats"
        about += f"; {len(result.caveats)} {word}, see {STATISTICS}"
    for panel in result.panels:
        panel.write(folder, about)
        gc.collect(0)  # figures are circular, and large
    result.values.to_csv(folder / "values.csv", index=False)
    result.missing.to_csv(folder / "missing.csv", index=False)
    used.to_csv(folder / RUNS_USED, date_format="%Y-%m-%dT%H:%M:%SZ")
    facts = {
        "analysis": result.name,
        **names,
        "seeds": list(result.seeds),
        "runs_used": len(used),
        "caveats": list(result.caveats),
        "matrices": result.statistics,
        "cells_of_some_seeds_only": {p.name: p.partial for p in result.panels if p.partial},
        "files": sorted({path.name for path in folder.iterdir()} | {STATISTICS}),
    }
    (folder / STATISTICS).write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n")


def _copy(folder: Path, out: Path, name: str) -> None:
    """Copy the files to `out`, where those of an earlier analysis of this name are replaced."""
    made = {out / path.name for path in folder.iterdir()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(_earlier(out, name) - made):
            path.unlink(missing_ok=True)
        for path in sorted(folder.iterdir()):
            shutil.copyfile(path, out / path.name)
    except OSError as fault:
        raise InputError(f"cannot write to out={str(out)!r}: {fault.strerror}") from None


def _earlier(out: Path, name: str) -> set[Path]:
    """The files that the same analysis wrote to this folder before, by its own list."""
    try:
        facts = json.loads((out / STATISTICS).read_text())
        listed = facts["files"] if facts["analysis"] == name else []
        return {out / file for file in listed if Path(file).name == file}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _log(result: Result, store: Store, folder: Path, parent: str | None, launched: bool) -> str:
    """The run of the analysis; one that gave the very same files is reused."""
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    fingerprint = digest(["analysis", result.name, files])
    done = store.finished(fingerprint)
    if done:
        store.adopt(done.id, parent)
        run_id = done.id
    else:
        seeds = ",".join(map(str, result.seeds))
        facts: dict[str, Any] = {
            "analysis": result.name,
            **result.options.names,
            **result.tags,
            "seed": seeds,
            "runs_used": len(result.runs_used),
        }
        name = f"{result.name} {result.options.scale}"
        tags = {key: str(value) for key, value in facts.items()}
        spec = RunSpec("analysis", name, fingerprint, tags, facts, parent)
        with store.run(spec, launched=launched) as run:
            run.artifacts(folder, result.name)
            run.metrics(0, _metrics(result))
        run_id = run.id
    if launched:
        store.point_launch(run_id)
    return run_id


def _metrics(result: Result) -> dict[str, float]:
    """Statistics as metrics such as ftwb2_seed1/trained/mean."""
    return {
        f"{matrix}/{cells}/{fact}": float(number)
        for matrix, kinds in result.statistics.items()
        for cells, facts in kinds.items()
        for fact, number in facts.items()
        if number is not None
    }


def _print(result: Result, run_id: str | None) -> None:
    """Say what came out: statistics, caveats, what is missing, where the files are."""
    for panel in result.panels:
        statistics = panel.statistics
        parts = [f"{kind} {_short(statistics[kind])}" for kind in SHOWN_CELLS]
        parts += [f"{panel.partial} cells of some seeds only"] if panel.partial else []
        click.echo(f"{panel.name}: {'; '.join(parts)}")
    for caveat in result.caveats[:SHOWN]:
        click.echo(f"note: {caveat}")
    if len(result.caveats) > SHOWN:
        click.echo(f"note: {len(result.caveats) - SHOWN} more in {STATISTICS}")
    commands = [command for command in result.values["command"].unique() if command]
    if commands:
        click.echo(f"missing: {len(result.missing)} cells; to fill them:")
        for command in commands[:SHOWN]:
            click.echo(f"  {command}")
        if len(commands) > SHOWN:
            click.echo(f"  and {len(commands) - SHOWN} more, in missing.csv")
    click.echo(f"figures and tables: {result.options.out.resolve()}")
    if run_id:
        click.echo(f"run: {run_id}")


def _short(summary: Summary) -> str:
    if summary["mean"] is None:
        return f"none (n = 0, missing {summary['missing']})"
    spread = f"{summary['mean']:.3f} ± {summary['std']:.3f}"
    return f"{spread} (n = {summary['n']}, missing {summary['missing']})"
