"""What a benchmark leaves behind: a table to read, and JSON with the machine it was measured on.

`python -m benchmarks.report bench` makes one Markdown page of the files of `make bench`.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

DIGITS = 3  # significant ones of a float


@dataclass(frozen=True)
class Table:
    """Rows below a header, with an optional line of text above. Text cells are left as they are."""

    header: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    title: str = ""

    def __str__(self) -> str:
        """As Markdown."""
        lines = [self.header, ["---"] * len(self.header)]
        lines += [[shown(cell) for cell in row] for row in self.rows]
        text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        return f"{self.title}\n\n{text}" if self.title else text


def shown(value: Any) -> str:
    """A cell's text: whole numbers with thousands separators, floats with three digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{DIGITS}g}")
    decimals = DIGITS - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, decimals)}f}"


def ratio(x: float) -> str:
    """How many times one is the other."""
    return f"{x:.2f}"


def percent(share: float) -> str:
    """A share of the whole, 1 being all of it."""
    return f"{shown(100.0 * share)}%"


def write(
    name: str, numbers: Mapping[str, Any], tables: Table | Sequence[Table], out: str | Path
) -> None:
    """Print the tables and, if `out` is a path, keep them there with all numbers as JSON.

    The file appears whole or not at all, so that a page is never made of half a measurement.
    """
    texts = [str(table) for table in ([tables] if isinstance(tables, Table) else tables)]
    click.echo("\n\n".join(texts))
    if not out:
        return
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "environment": environment(), "tables": texts, "numbers": numbers}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
        part = Path(folder) / path.name
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
        part.replace(path)


def environment() -> dict[str, Any]:
    """What a reader needs to judge the numbers. load: processes that wanted a core, of late."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "date": datetime.now().astimezone().isoformat(timespec="minutes"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "torch": str(torch.__version__),
        "device": device,
    }


def page(files: Iterable[Path]) -> str:
    """One Markdown page of what benchmarks wrote. Raises ValueError naming a file that is not."""
    return "\n\n".join(_section(path) for path in files)


def _section(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        facts = ", ".join(f"{key} {value}" for key, value in content["environment"].items())
        parts = [f"## {content['name']}", *content["tables"], f"({facts})"]
        return "\n\n".join(parts)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise ValueError(f"{path} was not written by a benchmark; remove it") from None


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print what the benchmarks wrote into FOLDER as one page."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise click.ClickException(f"{folder} holds no JSON of a benchmark; run `make bench` first")
    try:
        click.echo(page(files))
    except ValueError as fault:
        raise click.ClickException(str(fault)) from None


if __name__ == "__main__":
    main()
