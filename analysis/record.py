"""What an analysis made, on its way into a folder, into the store and onto the screen."""

from __future__ import annotations

import gc
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from analysis.figures.page import save_figure
from analysis.result import Result
from worldrep.digests import digest
from worldrep.errors import InputError, StateError, first_line
from worldrep.tracking import RunSpec, Store, StoreFault

STATISTICS, RUNS_USED, MISSING = "statistics.json", "runs_used.csv", "missing.csv"
SHOWN = 10


def publish(
    result: Result, store: Store, *, parent: str | None = None, launched: bool = False
) -> Path:
    """Write all files to the folder that was asked for, record them as a run, and print a summary.

    The folder is returned. Nothing is written there before everything is made. Raises InputError
    when it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="worldrep-") as temporary:
        folder = Path(temporary)
        write_files(result, store, folder)
        copy_files(folder, result.options.out, result.name)
        run_id = None
        if result.options.log:
            run_id = record(result, store, folder, parent=parent, launched=launched)
    _print(result, run_id)
    return result.options.out


def write_files(result: Result, store: Store, folder: Path) -> None:
    """Figures (PNG, SVG), tables (CSV), statistics (JSON)."""
    names = result.options.all_names | {"experiment": store.experiment_name}
    about = f"{result.options.in_words}, experiment {store.experiment_name}"
    about += f"; {len(result.runs_used)} runs, see {RUNS_USED}"
    if result.caveats:
        word = "caveat" if len(result.caveats) == 1 else "caveats"
        about += f"; {len(result.caveats)} {word}, see {STATISTICS}"
    for part in result.parts:
        save_figure(part.draw(about), folder, part.name)
        gc.collect(0)  # figures are circular, and large
    for name, table in result.all_tables.items():
        table.to_csv(folder / f"{name}.csv", index=table.index.name is not None)
    for name, text in result.pages.items():
        (folder / name).write_text(text)
    result.missing.to_csv(folder / MISSING, index=False)
    result.runs_used.to_csv(folder / RUNS_USED, date_format="%Y-%m-%dT%H:%M:%SZ")
    facts = {
        "analysis": result.name,
        **names,
        "seeds": list(result.seeds),
        "runs_used": len(result.runs_used),
        "missing": len(result.missing),
        "caveats": list(result.caveats),
        "statistics": plain(result.all_statistics),
        "files": sorted({path.name for path in folder.iterdir()} | {STATISTICS}),
    }
    (folder / STATISTICS).write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """The same in JSON's own kinds; a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # numpy's numbers
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def copy_files(folder: Path, out: Path, name: str) -> None:
    """Copy the files to `out`, where those of an earlier analysis of this name are replaced.

    They are put in place when all are there. Raises InputError when that cannot be done.
    """
    made = sorted(path.name for path in folder.iterdir())
    try:
        for file in made:
            if (out / file).is_dir():
                raise IsADirectoryError(0, f"{file} is a folder there")
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=out) as part:
            for file in made:
                shutil.copyfile(folder / file, Path(part) / file)
            for path in sorted(_earlier(out, name) - {out / file for file in made}):
                path.unlink(missing_ok=True)
            for file in made:
                (Path(part) / file).replace(out / file)
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


def record(
    result: Result, store: Store, folder: Path, *, parent: str | None = None, launched: bool = False
) -> str:
    """The id of the analysis's run; one that gave the very same files is reused.

    Raises StateError when the store does not take it.
    """
    try:
        return _record(result, store, folder, parent, launched)
    except StoreFault as fault:
        raise StateError(
            f"the files are in {result.options.out}, but the store at {store.address} did not "
            f"record them: {first_line(fault)}"
        ) from None


def _record(result: Result, store: Store, folder: Path, parent: str | None, launched: bool) -> str:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    fingerprint = digest(["analysis", result.name, files])
    if done := store.finished(fingerprint):
        store.adopt(done.id, parent)
        run_id = done.id
    else:
        facts: dict[str, Any] = {
            "analysis": result.name,
            **result.options.all_names,
            **result.tags,
            "seed": ",".join(map(str, result.seeds)),
            "runs_used": len(result.runs_used),
        }
        name = f"{result.name} {result.options.scale}"
        tags = {key: str(value) for key, value in facts.items()}
        spec = RunSpec("analysis", name, fingerprint, tags, facts, parent)
        with store.run(spec, launched=launched) as run:
            run.artifacts(folder, result.name)
            run.metrics(0, dict(_numbers(result.all_statistics)))
        run_id = run.id
    if launched:
        store.point_launch(run_id)
    return run_id


def _numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Numbers as metrics such as ftwb2_seed1/trained/mean; lists and texts are left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = "".join(c if c.isalnum() or c in "_-. :" else "_" for c in str(key))
            yield from _numbers(item, f"{path}/{name}" if path else name)
    elif not isinstance(value, (str, bool)):
        number = plain(value)
        if isinstance(number, (int, float)):
            yield path, float(number)


def _print(result: Result, run_id: str | None) -> None:
    """Say what came out: statistics, caveats, what is missing, where the files are."""
    for line in dict.fromkeys(line for part in result.parts for line in part.said):
        click.echo(line)
    say_caveats(result)
    say_missing(result)
    click.echo(f"figures and tables: {result.options.out.resolve()}")
    if run_id:
        click.echo(f"run: {run_id}")


def say_caveats(result: Result) -> None:
    for caveat in result.caveats[:SHOWN]:
        click.echo(f"note: {caveat}")
    if len(result.caveats) > SHOWN:
        click.echo(f"note: {len(result.caveats) - SHOWN} more in {STATISTICS}")


def say_missing(result: Result) -> None:
    commands = result.commands
    if commands:
        click.echo(f"missing: {len(result.missing)} values; to fill them:")
        for command in commands[:SHOWN]:
            click.echo(f"  {command}")
        if len(commands) > SHOWN:
            click.echo(f"  and {len(commands) - SHOWN} more, in {MISSING}")
