"""The report in a real browser, and the SVG figures that it holds."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from playwright.sync_api import sync_playwright
from synthetic import SyntheticStore

from analysis.cka import ONE_TASK
from analysis.figures.heatmap import Panel, Strip, draw_seeds
from analysis.figures.histogram import Histogram
from analysis.figures.intervals import Intervals
from analysis.figures.kinds import PERFORMANCE
from analysis.figures.page import hover_text, plain
from analysis.figures.scatter import Scatter
from analysis.figures.svg import svg_of
from analysis.options import Options
from analysis.panels import panels_of
from analysis.report import (
    CHAPTERS,
    count_missing,
    main,
    report,
    seed_panels,
    shown_parts,
)
from analysis.store.missing import missing_table
from analysis.store.selection import NothingThere
from analysis.store.source import Source
from worldrep.errors import InputError, StateError
from worldrep.names import TASK_NAMES
from worldrep.text import without_user
from worldrep.tracking import Store, StoreFault

MATRIX = pd.DataFrame(0.8, index=["ftwb1-1", "ftwb1-2"], columns=list(TASK_NAMES))
PRETRAINED_KIND = replace(ONE_TASK, lines=PERFORMANCE.lines)
SVG = "{http://www.w3.org/2000/svg}"  # namespace
EVIL = "</script><img src=x onerror=\"document.title='taken'\"> <b>&amp;</b>"


@pytest.fixture(scope="module")
def stored(new_store):
    """A store for all tests that only read: a few models of two seeds, with wild names of runs."""
    with new_store("stored") as (uri, _):
        a_few(SyntheticStore(uri))
        store = Store.connect()
        for run in store.find(stage="evaluate"):
            store.client.set_tag(run.id, "mlflow.runName", EVIL)
        yield store


@pytest.fixture(scope="module")
def made(stored):
    """Its page, with a password in the tracking URI as a database may need."""
    source = Source(stored)
    plain, stored.uri = stored.uri, "postgresql://me:secret@host/db"
    try:
        return report(source, Options(out="unused"))
    finally:
        stored.uri = plain


def of_store(**options):
    source = Source(Store.connect())
    return report(source, Options(out="unused", **options))


def a_few(synthetic, seeds=(1, 2)):
    for seed in seeds:
        base = synthetic.base(seed)
        for k, improvement in ((1, 0.8), (6, 0.6)):
            synthetic.tuned(f"ftwb1-{k}", base, improvement, seed)
        synthetic.tuned("ftwb2-13", base, 0.9, seed)


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "the tests of the report need Chromium"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a page without a network; errors are collected in page.faults."""
    contexts = []

    def opened(text, **options):
        view = {"width": 1400, "height": 1000}
        context = browser.new_context(viewport=view, offline=True, **options)
        contexts.append(context)
        path = tmp_path / "report.html"
        path.write_text(text)
        page = context.new_page()
        page.faults = []
        page.on("console", lambda m: page.faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda fault: page.faults.append(str(fault)))
        page.on("requestfailed", lambda request: page.faults.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


def under_the_mouse(page, title):
    """The hover text and the link at the middle of the first mark whose text contains `title`."""
    return page.evaluate(
        """title => {
            const found = [...document.querySelectorAll(".figure title")];
            const mark = found.find(own => own.textContent.includes(title)).parentNode;
            mark.closest("details")?.setAttribute("open", "");
            mark.scrollIntoView({block: "center"});
            const box = mark.getBoundingClientRect();
            const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            const text = top.closest("a").querySelector("title").textContent;
            return [text, top.closest("a")?.getAttribute("href") ?? ""];
        }""",
        title,
    )


# In the browser


def test_the_page_opens_without_an_error(made, visit):
    page = visit(made.pages["report.html"])
    assert page.faults == []
    headings = [element.inner_text() for element in page.query_selector_all("section h2")]
    assert headings[: len(CHAPTERS)] == [chapter.title for chapter in CHAPTERS.values()]
    assert {element.get_attribute("id") for element in page.query_selector_all("section")} == {
        *CHAPTERS, "missing", "runs", "definitions",
    }  # fmt: skip
    for link in page.query_selector_all("nav a, section p a[href^='#']"):
        assert page.query_selector(link.get_attribute("href"))
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))
    # Names of runs are shown as text.
    assert page.title().startswith("worldrep: scale mini")
    assert page.query_selector("img") is None
    assert EVIL in page.query_selector("#runs").inner_text()


def test_the_figures_need_no_script_and_little_space(made, visit):
    text = made.pages["report.html"]
    page = visit(text, java_script_enabled=False)
    boxes = [svg.bounding_box() for svg in page.query_selector_all("section > figure > svg")]
    assert len(boxes) > 10 and all(box["width"] > 200 and box["height"] > 100 for box in boxes)
    assert len(text) < 1_500_000


def test_a_cell_says_what_is_behind_it_and_a_row_leads_to_its_run(stored, made, visit):
    (run,) = [r for r in stored.find(stage="evaluate", seed="1") if r.tag("ft") == "ftwb1-6"]
    page = visit(made.pages["report.html"])
    text, link = under_the_mouse(page, "ftwb1-6, angle")
    assert text.splitlines()[0] == "ftwb1-6, angle: 0.6 ±0.00" and link == ""
    # 100 ** 0.4, the raw value
    assert text.splitlines()[1:] == [f"seed {i}: raw 6.31, normalised 0.600" for i in (1, 2)]
    text, link = under_the_mouse(page, "ftwb1-6 seed 1: ")
    assert text == "ftwb1-6 seed 1: " + " ".join(["0.60"] * 7)
    assert link == f"http://127.0.0.1:5000/#/experiments/{stored.experiment_id}/runs/{run.id}"


def test_the_search_finds_a_model_in_figures_and_runs(made, visit):
    page = visit(made.pages["report.html"])
    page.fill("#search input", "ftwb1-6")
    marks, runs = re.findall(r"\d+", page.inner_text("#search output"))
    hits = page.evaluate(
        "[...document.querySelectorAll('.hit > title')].map(title => title.textContent)"
    )
    assert len(hits) == int(marks) > 14 and all("ftwb1-6" in hit for hit in hits)
    shown = [row.inner_text() for row in page.query_selector_all("#runs tr") if row.is_visible()]
    assert len(shown) - 1 == int(runs) > 0 and all("ftwb1-6" in row for row in shown[1:])
    page.press("#search input", "Enter")
    page.wait_for_function("scrollY > 0")
    page.fill("#search input", "ftwb1")  # a family is not a model
    assert page.inner_text("#search output").startswith("0 marks")
    page.fill("#search input", "")
    assert page.query_selector(".hit") is None


def test_a_chapter_that_repeats_the_first_is_left_out(synthetic):
    base = synthetic.base()
    synthetic.tuned("ftwb1-1", base, 0.5)
    page = of_store().pages["report.html"]
    assert page.count("Nothing to show: the chapter &#39;Transfer&#39; has all of it") == 2
    synthetic.tuned("ftwb3-1", base, 0.5)
    page = of_store().pages["report.html"]
    assert page.count("has all of it") == 1 and "Fine-tuned on three tasks" in page


def test_an_analysis_that_the_store_cannot_support_says_why(made, visit):
    page = visit(made.pages["report.html"])
    assert "Nothing to show" in page.query_selector("#cka").inner_text()
    missing = page.query_selector("#missing").inner_text()
    assert missing.count("-e study") == 2  # one of them evaluates all checkpoints
    assert missing.count("-P steps=evaluate -P checkpoints=all") == 1
    assert "mlflow run . -e study -P name=exp1 -P seeds=1,2 --env-manager local" in missing


# Without one


def test_the_command_writes_the_page_and_records_it(synthetic, tmp_path):
    a_few(synthetic, seeds=(1,))
    out = tmp_path / "r"
    done = CliRunner().invoke(main, ["--out", str(out), "--server", "http://127.0.0.1:7777"])
    assert done.exit_code == 0, done.output
    names = {path.name for path in out.iterdir()}
    assert names == {"report.html", "missing.csv", "runs_used.csv", "statistics.json"}
    text = (out / "report.html").read_text()
    assert "http://127.0.0.1:7777/#/experiments/" in text
    assert not re.search(r'(?:src|href)="https?://(?!127\.0\.0\.1)', text.split("</head>")[1])
    facts = json.loads((out / "statistics.json").read_text())
    trained = facts["statistics"]["exp1_heatmaps"]["ftwb1_seed1"]["trained"]
    assert trained["mean"] == pytest.approx(0.7) and trained["n"] == 2
    assert any(caveat.startswith("cka: ") for caveat in facts["caveats"])
    (run,) = Store.connect().find(stage="analysis")
    assert run.status == "FINISHED"
    again = CliRunner().invoke(main, ["--out", str(out), "--server", "http://127.0.0.1:7777"])
    assert again.exit_code == 0 and len(Store.connect().find(stage="analysis")) == 1
    assert Path(out / "report.html").read_text() == text


def test_without_options_it_is_about_what_the_store_has_most_of(synthetic, tmp_path):
    def made(*arguments):
        done = CliRunner().invoke(main, ["--no-log", "--out", str(tmp_path / "r"), *arguments])
        assert done.exit_code == 0, done.output
        return done.output.splitlines()[0], (tmp_path / "r" / "report.html").read_text()

    synthetic.tuned("ftwb1-1", synthetic.base(scale="smoke"), 0.5, scale="smoke")
    base = synthetic.base(world="scattered")
    for k in (1, 2):
        synthetic.tuned(f"ftwb1-{k}", base, 0.5, world="scattered")
    others = "the store also has: scale smoke, width base, world standard"
    assert made()[0] == f"scale mini, width base, world scattered ({others})"
    first, page = made("--scale", "smoke")
    assert first == "scale smoke, width base, world standard"
    assert f"{first}, experiment worldrep" in page


def test_a_password_is_not_shared(made, stored):
    page = made.pages["report.html"].split("</head>")[1]
    assert "secret" not in page and "postgresql://host/db" in page
    for uri, address in {
        "postgresql+psycopg2://me:a/b@host:5432/db?password=secret": "postgresql+psycopg2://host:5432/db",
        "http://me:secret@host:5000/a@b": "http://host:5000/a@b",
        "sqlite:////home/me@work/mlflow.db": "sqlite:////home/me@work/mlflow.db",
        "./mlruns": "./mlruns",
    }.items():  # fmt: skip
        assert without_user(uri) == address
    stored, plain = Source(stored).store, stored.uri
    stored.uri = "http://me:secret@host:5000"
    try:
        assert "secret" not in Source(stored).place
        with pytest.raises(InputError, match=r"not in the store at http://host:5000$"):
            stored.get("0" * 32)
    finally:
        stored.uri = plain


def test_wrong_input_is_one_sentence(synthetic):
    with pytest.raises(NothingThere, match="has no finished evaluation of scale mini"):
        of_store()
    with pytest.raises(InputError, match="server='javascript:alert"):
        report(Source(Store.connect()), Options(out="unused"), "javascript:alert(1)")


def test_a_store_that_does_not_answer_ends_the_report(synthetic, monkeypatch):
    def silent(**tags):
        raise StoreFault("gone")

    source = Source(Store.connect())
    monkeypatch.setattr(source.store, "find", silent)
    with pytest.raises(StateError, match="cannot read the experiment 'worldrep'.*: gone"):
        report(source, Options(out="unused"))


def test_what_is_missing_is_told_by_command_and_without_one_by_reason():
    rows = [
        *({"command": "do it", "reason": f"because {i}"} for i in range(5)),
        {"command": "", "reason": "gone"},
        {"reason": "gone", "task": "angle", "seed": 1},
        {"command": "do more", "reason": "why not"},
    ]
    missing = missing_table(rows).assign(analysis="a")
    first, second = count_missing(missing, "command")
    assert (first["command"], first["n"], first["analyses"]) == ("do it", 5, "a")
    assert first["reason"] == "because 0; because 1; because 2; and 2 more"
    assert (second["command"], second["reason"]) == ("do more", "why not")
    (lost,) = count_missing(missing, "reason")
    assert (lost["reason"], lost["n"]) == ("gone", 2)
    assert count_missing(missing[:0], "command") == count_missing(missing[:0], "reason") == []


# Figures


def test_histograms_have_bins_of_one_ratio_and_dashed_medians():
    table = pd.DataFrame({"g": ["a"] * 3 + ["b"] * 3, "v": [1.0, 10, 1000, 3, 30, 30]})
    chart = Histogram(name="h", title="H", table=table, value="v", group="g", log=True)
    edges = chart.edges(table)
    assert (edges[0], edges[-1]) == (1.0, pytest.approx(1000)) and len(edges) == 6
    axes = chart.draw("").axes[0]
    for bars in axes.containers:
        assert np.allclose([bar.get_x() for bar in bars], edges[:-1])
        assert np.allclose([bar.get_x() + bar.get_width() for bar in bars], edges[1:])
        assert sum(bar.get_height() for bar in bars) == 3
    assert [line.get_xdata()[0] for line in axes.lines] == [10, 30]


def test_a_scatter_joins_its_front_and_keeps_its_units():
    table = pd.DataFrame({"x": [3.0, 1, 2], "y": [1.0, 3, 0], "front": [True, True, False]})
    chart = Scatter(name="s", title="S", table=table, x="x", y="y", front="front", equal=True)
    axes = chart.draw("").axes[0]
    (front,) = axes.lines
    assert list(front.get_xdata()) == [1, 3] and list(front.get_ydata()) == [3, 1]
    assert axes.get_aspect() == 1


def test_groups_that_share_a_label_lie_apart():
    table = pd.DataFrame({"label": ["p", "q", "p"], "v": [1.0, 2, 3], "g": ["a", "a", "b"]})
    chart = Intervals(name="i", title="I", table=table, label="label", value="v", group="g")
    axes = chart.draw("").axes[0]
    heights = [points.get_offsets()[:, 1].tolist() for points in axes.collections]
    assert heights == [[-0.25, 0.75], [0.25]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["p", "q"]


def test_single_seeds_are_small_multiples_and_a_matrix_in_a_strip_is_not_shown_alone():
    matrices = {1: MATRIX, 2: MATRIX / 2}
    wide, narrow = (
        panels_of(f"{width}_a", "A", PERFORMANCE, matrices, width) for width in ("wide", "narrow")
    )
    alone = Panel("b", "B", PERFORMANCE, MATRIX)
    strip = Strip("a_widths", "A, by width", ("Side by side.",), [wide[-1], narrow[-1]])
    parts = [*wide, *narrow[1:], alone, strip]
    assert shown_parts(parts) == [alone, strip]
    seeds = seed_panels(parts)
    assert {stem: [panel.seed for panel in own] for stem, own in seeds.items()} == {
        "wide_a": [1, 2], "narrow_a": [2],
    }  # fmt: skip
    figure = draw_seeds(seeds["wide_a"], "A, each seed")
    headings = [axes.get_title(loc="left") for axes in figure.axes]
    assert headings[:2] == ["seed 1", "seed 2"]
    assert [axes.get_title(loc="left") for axes in draw_seeds([alone] * 30, "B").axes]


def marked_chart(**options):
    table = pd.DataFrame(
        {"model": [EVIL, "m"], "x": [1.0, 2], "y": [1, 2000], "run_id": ["r1", None]}
    )
    return Scatter(name="s", title=EVIL, table=table, x="x", y="y", **options)


def test_marks_carry_their_facts_and_link_to_their_run():
    address = "http://127.0.0.1:5000/#/experiments/3/runs/"
    root = ElementTree.fromstring(svg_of(marked_chart().draw(""), "f1", address))
    assert [title.text for title in root.iter(f"{SVG}title")] == [
        f"model: {EVIL}\nx: 1\ny: 1", "model: m\nx: 2\ny: 2,000",
    ]  # fmt: skip
    (link,) = [own for own in root.iter(f"{SVG}a") if own.get("href")]
    assert link.get("href") == f"{address}r1"
    assert next(link.iter(f"{SVG}title")).text.startswith(f"model: {EVIL}")
    assert EVIL in [text.text for text in root.iter(f"{SVG}text")]
    used = {element.get("href") for element in root.iter(f"{SVG}use")}
    assert used <= {f"#{element.get('id')}" for element in root.iter()}
    other = ElementTree.fromstring(svg_of(marked_chart().draw(""), "f2", address))
    one, two = ({own.get("id") for own in svg.iter() if own.get("id")} for svg in (root, other))
    assert one and not one & two


def test_a_file_holds_its_own_styles_and_the_same_figure_gives_the_same_bytes():
    text = svg_of(marked_chart().draw(""), "s")
    assert text == svg_of(marked_chart().draw(""), "s")
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert {f".{e.get('class')}" for e in root.iter() if e.get("class")} <= set(
        re.findall(r"\.[\w-]+", root[0].text)
    )
    assert len(list(root.iter(f"{SVG}title"))) == 2


def test_a_chart_of_very_many_points_has_no_hover_texts():
    n = 501
    table = pd.DataFrame({"x": np.arange(n), "y": np.arange(n)})
    chart = Scatter(name="s", title="S", table=table, x="x", y="y")
    text = svg_of(chart.draw(""), "s")
    assert "<title>" not in text and "<image" in text and len(text) < 100_000


def test_a_large_matrix_is_an_image_with_one_hover_text_for_each_row():
    names = [f"pt2-{i}" for i in range(1, 36)]
    matrix = pd.DataFrame(0.25, index=names, columns=names)
    matrix.iloc[0, 1] = np.nan
    text = svg_of(Panel("m", "M", PRETRAINED_KIND, matrix).draw(""), "m")
    titles = re.findall("<title>(.*?)</title>", text)
    assert titles[:2] == [
        "pt2-1: 0.25 - " + " ".join(["0.25"] * 33),
        f"pt2-2: {'0.25 ' * 35}".strip(),
    ]
    assert len(titles) == 35 and "<pattern" in text and len(text) < 60_000


def test_hover_texts_leave_out_what_is_not_known():
    facts = {"model": EVIL, "n_seeds": 3, "gone": None, "nan": float("nan"), "run_id": "r"}
    assert hover_text(facts) == f"model: {EVIL}\nn seeds: 3"
    assert plain(0.123456) == "0.1235" and plain(4000) == "4,000" and plain(True) == "True"
