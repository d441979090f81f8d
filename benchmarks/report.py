"""What all benchmarks share: a command with options, timing, Markdown tables, and JSON files."""

import inspect
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import torch

from worldrep.errors import InputError, one_sentence
from worldrep.model.linear import linear_library

Rows = list[dict[str, Any]]  # cells by the header of their column
Tables = dict[str, Rows]  # by title


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, including its work on the device, and its result."""
    synchronize()
    begun, result = time.perf_counter(), work()
    synchronize()
    return time.perf_counter() - begun, result


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turns(rounds: int, *ways: Callable[[], Any]) -> list[tuple[float, Any]]:
    """Call functions in turn; return the median seconds and the last result of each."""
    found = [[timed(work) for work in ways] for _ in range(rounds)]
    return [
        (statistics.median(seconds for seconds, _ in calls), calls[-1][1])
        for calls in zip(*found, strict=True)
    ]


def benchmark(measure: Callable[..., Tables]) -> click.Command:
    """Make a command of a function whose parameters all have defaults.

    Each parameter is an option, a tuple as a list such as `1,2,4`. The tables that the function
    returns are printed as Markdown, and written to the JSON file that `--out` names.
    """
    defaults = {name: p.default for name, p in inspect.signature(measure).parameters.items()}
    name = Path(inspect.getfile(measure)).stem

    def run(out: str, **typed: Any) -> None:
        options = {key: parse(typed[key], default) for key, default in defaults.items()}
        tables = measure(**options)
        click.echo(f"## {name}\n")
        for title, rows in tables.items():
            click.echo(f"{title}\n\n{table(rows)}\n")
        if out:
            content = {"name": name, "environment": environment(), "options": options}
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            Path(out).write_text(
                json.dumps(content | {"tables": tables}, indent=1), encoding="utf-8"
            )

    command: Any = click.option("--out", default="", help="JSON file for the tables.")
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


def table(rows: Rows) -> str:
    """Format rows as a Markdown table; the first row names the columns."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)]
    lines += [[shown(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def shown(value: Any) -> str:
    """Format a cell: numbers with thousands separators, floats with three significant digits."""
    if isinstance(value, float):
        return f"{float(f'{value:.3g}'):,.12g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def environment() -> dict[str, Any]:
    """Describe the machine. load: processes that wanted a core in the last minute."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)  # not in older versions
    return {
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "cpu": capabilities().get("cpu_name", platform.machine()),
        "linear_library": linear_library(),
    }
