"""The result of an analysis: its figures, tables and statistics, and how they are published."""

import gc
import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import click
import pandas as pd

from analysis.figures.chart import Chart
from analysis.figures.heatmap import Panel, Strip
from analysis.figures.page import save_figure
from analysis.options import Options
from worldrep.digests import digest
from worldrep.disk import sha256, temporary_folder
from worldrep.errors import InputError, StateError, first_line, reason_of
from worldrep.studies.commands import fewest_commands, in_order
from worldrep.text import write_csv
from worldrep.tracking import RunSpec, Store, StoreFault

STATISTICS, RUNS_USED, MISSING = "statistics.json", "runs_used.csv", "missing.csv"
SHOWN = 10  # caveats or commands that are printed

Part = Chart | Panel | Strip  # one figure, with its tables and statistics


@dataclass(frozen=True)
class Result:
    """The result of an analysis.

    missing: what the store lacks, with MISSING_COLUMNS; runs_used: the runs that the numbers come
    from, with USED_COLUMNS; caveats: sentences that a reader has to know; tables, statistics:
    those that no part has; tags: of the recorded run, without prefix; pages: texts by file name.
    """

    name: str
    options: Options
    seeds: Sequence[int]
    parts: Sequence[Part]
    missing: pd.DataFrame
    runs_used: pd.DataFrame
    caveats: Sequence[str] = ()
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)

    @property
    def units(self) -> list[Chart | Panel]:
        """The charts and matrices, each of which has tables, statistics and sentences."""
        found = (part.panels if isinstance(part, Strip) else [part] for part in self.parts)
        return [unit for own in found for unit in own]

    @property
    def figures(self) -> dict[str, Part]:
        """The parts by the names of their figures' files."""
        return {part.name: part for part in self.parts}

    @property
    def all_tables(self) -> dict[str, pd.DataFrame]:
        """The tables of the parts, and the further ones, by the names of their CSV files."""
        of_units = {name: table for unit in self.units for name, table in unit.tables.items()}
        return self.tables | of_units

    @property
    def all_statistics(self) -> dict[str, Any]:
        """The statistics of the parts, and the further ones."""
        return {k: v for unit in self.units for k, v in unit.statistics.items()} | self.statistics

    @cached_property
    def commands(self) -> dict[str, list[str]]:
        """What to type in place of each command of `missing`, see `fewest_commands`."""
        runs, present = self.runs_used, set()
        if "current" in runs:
            runs = runs[runs["current"].astype(bool)]
            present = {*zip(runs["model"], runs["seed"], strict=True)}
        return fewest_commands(filter(None, self.missing["command"].dropna().unique()), present)

    @property
    def sentences(self) -> list[str]:
        """The findings in words, each once."""
        return list(dict.fromkeys(line for unit in self.units for line in unit.said))


def publish(
    result: Result, store: Store, *, parent: str | None = None, launched: bool = False
) -> Path:
    """Write all files to the output folder, record them as a run and print a summary.

    parent: run id of the study that the recorded run belongs to; launched: this is the work that
    `mlflow run` was started for. Raises InputError if the folder cannot be written (nothing is
    written before all files are made), StateError if the store cannot record the run.
    """
    out, run_id = result.options.out, ""
    with temporary_folder() as folder:
        _write_files(result, store, folder)
        _copy_files(folder, out, result.name)
        if result.options.log:
            try:
                run_id = _record(result, store, folder, parent, launched)
            except (StateError, StoreFault) as fault:
                raise StateError(
                    f"the files are in {out}, but the store at {store.address} did not "
                    f"record them: {first_line(fault)}"
                ) from None
    if not result.options.quiet:
        lines = [*_summary(result), f"figures and tables: {out.resolve()}"]
        click.echo("\n".join(lines + [f"run: {run_id}"] * bool(run_id)))
    return out


def _write_files(result: Result, store: Store, folder: Path) -> None:
    about = f"{result.options.in_words}, experiment {store.experiment_name}"
    about += f"; {len(result.runs_used)} runs, see {RUNS_USED}"
    about += f"; caveats: {len(result.caveats)}, see {STATISTICS}" if result.caveats else ""
    for part in result.parts:
        if part.panels and all(panel.is_empty for panel in part.panels):
            continue  # its table says so
        save_figure(part.draw(about), folder, part.name)
        gc.collect(0)  # figures are large reference cycles
    for name, table in result.all_tables.items():
        write_csv(table, folder / f"{name}.csv", index=table.index.name is not None)
    for name, text in result.pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    write_csv(result.missing, folder / MISSING, index=False)
    write_csv(result.runs_used, folder / RUNS_USED, date_format="%Y-%m-%dT%H:%M:%SZ")
    facts = {
        "analysis": result.name,
        **result.options.all_names,
        "experiment": store.experiment_name,
        "seeds": list(result.seeds),
        "runs_used": len(result.runs_used),
        "missing": len(result.missing),
        "caveats": list(result.caveats),
        "statistics": _plain(result.all_statistics),
        "files": sorted({path.name for path in folder.iterdir()} | {STATISTICS}),
    }
    (folder / STATISTICS).write_text(
        json.dumps(facts, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )


def _plain(value: Any) -> Any:
    """Return the value with JSON's own types; a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _copy_files(folder: Path, out: Path, name: str) -> None:
    """Copy the files to `out` and remove those of an earlier result of the same analysis.

    The copies are renamed after all of them are complete. Raises InputError if that fails.
    """
    made = sorted(path.name for path in folder.iterdir())
    try:
        for file in made:
            if (out / file).is_dir():
                raise IsADirectoryError(0, f"{file} is a folder there")
        out.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out, place="the folder of out") as part:
            for file in made:
                shutil.copyfile(folder / file, part / file)
            for file in _earlier(out, name) - set(made):
                (out / file).unlink(missing_ok=True)
            for file in made:
                (part / file).replace(out / file)
    except OSError as fault:
        raise InputError(f"cannot write to out={str(out)!r}: {reason_of(fault)}") from None


def _earlier(out: Path, name: str) -> set[str]:
    """Return the files that the same analysis wrote before, as its statistics.json lists them."""
    try:
        facts = json.loads((out / STATISTICS).read_text(encoding="utf-8"))
        listed = facts["files"] if facts["analysis"] == name else []
        return {file for file in listed if Path(file).name == file}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _record(result: Result, store: Store, folder: Path, parent: str | None, launched: bool) -> str:
    """Record the files as a run; one with the same files is reused. Returns its id."""
    files = {path.name: sha256(path) for path in folder.iterdir()}
    fingerprint = digest(["analysis", result.name, files])
    run_id = store.reuse(fingerprint, parent)
    if run_id is None:
        facts: dict[str, Any] = {"analysis": result.name, **result.options.all_names, **result.tags}
        facts |= {"seed": ",".join(map(str, result.seeds)), "runs_used": len(result.runs_used)}
        name = f"{result.name} {result.options.scale}"
        spec = RunSpec("analysis", name, fingerprint, facts, facts, parent)
        with store.run(spec, launched=launched) as run:
            run.artifacts(folder, result.name)
            run.metrics(0, dict(_metrics(_plain(result.all_statistics))))
        run_id = run.id
    if launched:
        store.point_launch(run_id)
    return run_id


def _metrics(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Yield numbers as metrics such as ftwb2_seed1/trained/mean, without lists and texts."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = re.sub(r"[^\w.: -]", "_", key)
            yield from _metrics(item, f"{path}/{name}" if path else name)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, float(value)


def _summary(result: Result) -> list[str]:
    lines = result.sentences + _some("note: ", result.caveats, STATISTICS)
    if commands := in_order(chain.from_iterable(result.commands.values())):
        lines.append(f"missing: {len(result.missing)} values; to fill them:")
        lines += _some("  ", commands, MISSING)
    return lines


def _some(prefix: str, lines: Sequence[str], file: str) -> list[str]:
    rest = [f"{prefix}and {len(lines) - SHOWN} more, in {file}"] if len(lines) > SHOWN else []
    return [*(f"{prefix}{line}" for line in lines[:SHOWN]), *rest]
