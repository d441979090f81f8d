"""Texts that others wrote act on no terminal, page, figure or spreadsheet; and locales."""

import ast
import csv
import io
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.font_manager import fontManager

from analysis.figures import svg as svg_files
from analysis.figures.page import MarkedFigure, save_figure
from analysis.options import Options
from analysis.probes import main as probes
from analysis.report import report
from analysis.store.source import Source
from entrypoints.study import main as study
from worldrep.text import CleanStream, line, plain, write_csv
from worldrep.tracking import Store

ROOT = Path(__file__).parents[1]
ESCAPES = "\x1b]0;taken\x07\x1b[2J\x1b[31mred\x9b5m\r\u202e\u2066\u200b"
FORMULA = "=HYPERLINK(\"http://127.0.0.1\")|' /C calc'!A0"
NAMES = [
    "$5_$ to $9_$",
    "東京",
    FORMULA,
    "<script>alert(1)</script>",
    f"a{ESCAPES}b".replace("\r", ""),
    "-7",
]
ACTING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def strange(synthetic, tmp_path, monkeypatch):
    """A base and a model in a world whose cities and regions have strange names."""
    monkeypatch.setattr("analysis.figures.page.DPI", 20)
    monkeypatch.setattr("worldrep.data.world._CONTROL", re.compile("(?!)"))  # others have no check
    rows = [(f"{NAMES[i % 6]}{i}", 100 * i - 1700, 50 * i - 800, NAMES[i % 6]) for i in range(30)]
    table = pd.DataFrame(rows, columns=["name", "x", "y", "region"])
    table.to_csv("odd.csv", index=False, lineterminator="\n")
    changed = {"cities": str(tmp_path / "odd.csv"), "n_layers": 2}
    noise = np.random.default_rng(0).normal(size=(len(synthetic.world(**changed).cities), 8))
    base = synthetic.trained("pt1", 1, **changed)
    tuned = synthetic.trained("pt1_ftwb1-1", 1, base, **changed)
    for model, run_id in (("pt1", base), ("pt1_ftwb1-1", tuned)):
        features = {1: (noise + len(model)).astype(np.float32)}
        synthetic.extract(model, 1, run_id, features, base, **changed)
    return synthetic


def test_names_of_cities_do_nothing_in_figures_tables_and_on_the_terminal(strange, tmp_path):
    done = CliRunner().invoke(probes, ["--out", "out", "--no-log"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert not ACTING.search(done.output)
    svgs = [*Path("out").glob("*.svg")]
    assert len(svgs) > 3
    for path in svgs:
        drawn = path.read_text(encoding="utf-8")
        assert not ACTING.search(drawn) and not ElementTree.fromstring(drawn).findall(".//script")
    drawn = Path("out/pca_map.svg").read_text(encoding="utf-8")
    assert "$5_$ to $9_$" in drawn and "\\x1b]0;taken\\x07" in drawn
    for path in Path("out").glob("*.csv"):
        text = path.read_text(encoding="utf-8")
        assert not ACTING.search(text)
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert not [c for c in cells if c.startswith(("=", "+", "@")) or c.startswith("-H")]
    table = pd.read_csv("out/pca_map.csv", dtype=str)
    assert f"'{FORMULA}" in set(table["region"]) and "-7" in set(table["region"])


def test_tags_and_names_of_runs_do_nothing_in_the_report(strange):
    store = Store.connect()
    for run in store.find(stage="extract"):
        store.client.set_tag(run.id, "mlflow.runName", f"<b>{ESCAPES}")
    (run_id,) = [run.id for run in store.find(stage="extract", model="pt1")]
    with closing(sqlite3.connect("mlflow.db")) as connection:  # past the limits of a server
        large = f"update tags set value = '{'x' * 1_000_000}' where key = 'worldrep.model' "
        connection.execute(large + f"and run_uuid = '{run_id}'")
        connection.execute(f"update runs set name = '{'y' * 1_000_000}'")
        connection.commit()
    (page,) = report(Source(Store.connect()), Options(out="unused")).pages.values()
    assert len(page) < 600_000 and not ACTING.search(page) and "<b>\\x1b" not in page
    assert "<script>alert(1)" not in page


def test_the_reason_of_a_failed_step_does_nothing_on_the_terminal(synthetic):
    run_id = synthetic.run("pretrain", "pt1", 42, status="FAILED")
    reason = f"no\nerror {ESCAPES} http://bob:secret@host/"
    synthetic.client.set_tag(run_id, "worldrep.error", reason)
    Path("one.yaml").write_text("models: [pt1]\n")
    done = CliRunner().invoke(study, ["--name", "one.yaml", "--action", "status"])
    assert f"failed: pt1 s42 pretrain: no error {plain(ESCAPES)[:13]}" in done.output
    assert not ACTING.search(done.output) and "secret" not in done.output


@given(st.text())
def test_no_text_acts(text):
    assert not ACTING.search(plain(text)) and "\n" not in line(text)
    assert plain(plain(text)) == plain(text)
    if text.isascii() and text.isprintable():
        assert plain(text) == line(text) == text


def test_a_line_is_as_long_as_a_terminal_bears():
    assert len(line("x" * 10**6)) == 8000 and line("x" * 10**6, 10) == "x" * 9 + "…"


def test_progress_bars_still_move_the_cursor():
    from tqdm import tqdm

    out = io.StringIO()
    with tqdm(total=2, position=1, file=CleanStream(out, True), mininterval=0) as bar:
        bar.set_description(f"a{ESCAPES}")
        bar.update()
    assert "\x1b[A" in out.getvalue() and "\r" in out.getvalue()
    assert "\x1b[2J" not in out.getvalue() and "\\x1b[2J" in out.getvalue()


def test_texts_of_a_table_are_no_formulas_and_numbers_stay_numbers(tmp_path):
    formulas = ["=1+1", " =1", "+a", "@SUM(A1)", "-cmd", "-", "＝1"]
    cells = [*formulas, "-1.5", "-1 -2", "+3", "a=1"]
    table = pd.DataFrame({"=x": cells, "n": range(len(cells))}, index=[f"-{c}" for c in cells])
    write_csv(table, tmp_path / "table.csv")
    found = [*csv.reader((tmp_path / "table.csv").open(encoding="utf-8", newline=""))]
    assert found[0] == ["", "'=x", "n"]
    safe = [f"'{cell}" for cell in formulas] + cells[len(formulas) :]
    assert [row[1] for row in found[1:]] == safe
    assert [row[2] for row in found[1:]] == [str(n) for n in range(len(cells))]


def test_letters_are_drawn_with_a_font_that_has_them_or_as_escapes(tmp_path, monkeypatch):
    def drawn(name):
        figure = MarkedFigure(4, 1, "東京 Ω", ["一行"])
        figure.settle()
        save_figure(figure, tmp_path, name)
        return figure, (tmp_path / f"{name}.svg").read_text(encoding="utf-8")

    svg_files._font_with.cache_clear()
    monkeypatch.setattr(fontManager, "ttflist", [*fontManager.ttflist])
    figure, svg = drawn("without")
    known = svg_files._font_with(ord("東"))
    if not known:  # as on most machines
        assert "\\u6771\\u4eac Ω" in svg
    fontManager.addfont(font_of("東京", tmp_path / "small.ttf"))
    svg_files._font_with.cache_clear()
    figure, svg = drawn("with")
    assert "東京 Ω" in svg and (known or "Small" in svg)
    assert "\\u4e00\\u884c" in svg or svg_files._font_with(ord("一"))
    svg_files._font_with.cache_clear()


def font_of(text, path):
    """A font of squares for the letters of a text."""
    names = [f"square{i}" for i in range(len(text))]
    pen = TTGlyphPen(None)
    for x, y in ((0, 0), (0, 700), (700, 700), (700, 0)):
        (pen.lineTo if y or x else pen.moveTo)((x, y))
    pen.closePath()
    glyph = pen.glyph()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(text, names, strict=True)})
    builder.setupGlyf(dict.fromkeys([".notdef", *names], glyph))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Small", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def test_figures_have_no_mathematics():
    assert matplotlib.rcParams["text.parse_math"] is False


@pytest.mark.slow
def test_commands_work_where_the_locale_knows_ascii_alone(store_uri, tmp_path):
    places = np.random.default_rng(0).integers(-900, 900, size=(24, 2))
    rows = [f"東京{i},{x},{y},Zürich\n" for i, (x, y) in enumerate(places)]
    Path("cities.csv").write_text("name,x,y,region\n" + "".join(rows), encoding="utf-8")
    Path("one.yaml").write_text(
        "about: Straße nach 東京\nmodels: [pt1, pt1_ftwb1-1]\nscale: smoke\n"
        "settings: {cities: cities.csv}\n",
        encoding="utf-8",
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", *arguments], env=os.environ | ascii_only, capture_output=True
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        return done.stdout

    run("entrypoints.study", "--name", "one.yaml", "--executor", "inline")
    run("analysis.report", "--scale", "smoke", "--out", "out")
    run("analysis.probes", "--scale", "smoke", "--out", "probes")
    assert "Zürich" in Path("out/report.html").read_text(encoding="utf-8")
    assert "東京" in Path("probes/pca_map.csv").read_text(encoding="utf-8")
    (parent,) = Store.connect().find(stage="study")
    assert "Straße nach 東京" in parent.tags["mlflow.note.content"]
    with Store.connect().download(parent.id, "cities.csv") as path:
        assert path.read_bytes() == Path("cities.csv").read_bytes()


def test_a_file_whose_name_the_locale_cannot_spell_is_one_sentence(tmp_path):
    program = "from worldrep.data.world import build_world; build_world('smoke', cities='東.csv')"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    program = program.encode("unicode_escape").decode()
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | ascii_only, capture_output=True, text=True
    )
    assert "InputError: cannot read cities=" in done.stderr


@pytest.mark.parametrize(
    "path", [p for top in ("src", "analysis", "entrypoints") for p in (ROOT / top).rglob("*.py")]
)
def test_every_text_file_is_opened_with_its_encoding(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) != "os.open":
            of_a_path = getattr(node.func, "attr", "")
            name = getattr(node.func, "id", of_a_path)
            is_binary = any("b" in str(a.value) for a in node.args if isinstance(a, ast.Constant))
            given = {keyword.arg for keyword in node.keywords}
            if of_a_path in ("read_text", "write_text") or (name == "open" and not is_binary):
                assert "encoding" in given, f"{path}:{node.lineno}"
