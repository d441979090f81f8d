"""What all benchmarks share: options from parameters, Markdown tables, and JSON of the numbers.

`python -m benchmarks.report bench` prints one Markdown page of the files of `make bench`.
"""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from worldrep.errors import InputError, one_sentence

DIGITS = 3  # significant ones of a float
Results = tuple[Mapping[str, Any], list[str]]  # numbers by name, and tables


def benchmark(measure: Callable[..., Results]) -> click.Command:
    """Make a command of a function whose parameters all have defaults.

    Each parameter is an option, a tuple as a list such as `1,2,4`. `--out` names a JSON file for
    the options and the numbers that the function returns; its tables are printed.
    """
    defaults = {name: p.default for name, p in inspect.signature(measure).parameters.items()}
    name = inspect.getfile(measure).rpartition("/")[2].removesuffix(".py")

    def run(out: str, **typed: Any) -> None:
        values = {key: parse(typed[key], default) for key, default in defaults.items()}
        numbers, tables = measure(**values)
        click.echo("\n\n".join(tables))
        if out:
            write(Path(out), name, values | dict(numbers), tables)

    command: Any = click.option("--out", default="", help="JSON file for the numbers.")
    command = command(one_sentence(run))
    for key, default in defaults.items():
        shown_default = ",".join(map(str, default)) if isinstance(default, tuple) else default
        command = click.option(f"--{key}", default=shown_default, show_default=True)(command)
    return click.command(help=measure.__doc__)(command)


def parse(value: Any, default: Any) -> Any:
    """Split the text of an option whose default is a tuple. Raises InputError."""
    if not isinstance(default, tuple):
        return value
    try:
        return tuple(type(default[0])(part) for part in value.split(","))
    except ValueError:
        raise InputError(f"{value!r} is not a list of whole numbers such as 1,2,4") from None


def table(cases: Iterable[Any], columns: Mapping[str, Any], title: str = "") -> str:
    """Format cases as a Markdown table; columns map a header to a key or function of a case."""
    lines = [list(columns), ["---"] * len(columns)]
    for case in cases:
        cells = (get(case) if callable(get) else case[get] for get in columns.values())
        lines.append([shown(cell) for cell in cells])
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{title}\n\n{text}" if title else text


def shown(value: Any) -> str:
    """Format a cell: integers with thousands separators, floats with three significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    rounded = float(f"{value:.{DIGITS}g}")
    decimals = DIGITS - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, decimals)}f}"


def percent(share: float) -> str:
    """Format a share of 1."""
    return f"{shown(100.0 * share)}%"


def write(path: Path, name: str, numbers: Mapping[str, Any], tables: list[str]) -> None:
    """Write a JSON file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "environment": environment(), "tables": tables, "numbers": numbers}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1), encoding="utf-8")
    part.replace(path)


def environment() -> dict[str, Any]:
    """Describe the machine. load: processes that wanted a core in the last minute."""
    import torch

    return {
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }


def section(path: Path) -> str:
    """Format the file of a benchmark as Markdown. Raises click.ClickException for another file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        facts = ", ".join(f"{key} {value}" for key, value in content["environment"].items())
        return "\n\n".join([f"## {content['name']}", *content["tables"], f"({facts})"])
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        message = f"{path} was not written by a benchmark; remove it"
        raise click.ClickException(message) from None


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print what the benchmarks wrote into FOLDER as one page."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise click.ClickException(f"{folder} holds no JSON of a benchmark; run `make bench` first")
    click.echo("\n\n".join(map(section, files)))


if __name__ == "__main__":
    main()
