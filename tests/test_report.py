"""The page, in a real browser: no errors, the mouse finds what it should, names are text."""

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from analysis.html.heatmaps import CHOICE, in_places, plot_sheet
from analysis.html.histogram import plot_histogram
from analysis.html.hover import escaped
from analysis.html.intervals import plot_intervals
from analysis.html.page import in_script
from analysis.html.scatter import plot_scatter
from click.testing import CliRunner
from playwright.sync_api import sync_playwright
from synthetic import SyntheticStore

from analysis.figures.heatmap import Panel, Strip
from analysis.figures.histogram import Histogram
from analysis.figures.intervals import Intervals
from analysis.figures.kinds import PERFORMANCE
from analysis.figures.marks import hover_text
from analysis.figures.scatter import Scatter
from analysis.options import Options
from analysis.panels import panels_of
from analysis.report import CHAPTERS, main, report, study_command
from analysis.report_page import Links, missing_by_command, missing_for_good
from analysis.store.missing import missing_table
from analysis.store.selection import NothingThere
from analysis.store.source import Source
from worldrep.errors import InputError, StateError
from worldrep.names import TASK_NAMES
from worldrep.studies import expand, load_definition
from worldrep.tracking import Store, StoreFault, without_user

MATRIX = pd.DataFrame(0.8, index=["ftwb1-1", "ftwb1-2"], columns=list(TASK_NAMES))
EVIL = "</script><img src=x onerror=\"document.title='taken'\"> <b>&amp;</b>"


@pytest.fixture(scope="module")
def stored(empty_database, tmp_path_factory):
    """A store for all tests that only read: a few models of two seeds, with wild names of runs."""
    folder = tmp_path_factory.mktemp("stored")
    shutil.copy(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
        a_few(SyntheticStore(f"sqlite:///{folder}/mlflow.db"))
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
    """Opens a page without any network; what went wrong is collected in page.faults."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, offline=True)
    context.add_init_script("window.opened = []; window.open = (url) => window.opened.push(url);")

    def opened(text):
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
    context.close()


def scroll_through(page):
    """Bring every figure into view, until all are drawn."""
    for place in page.query_selector_all(".plot"):
        place.scroll_into_view_if_needed()
        page.wait_for_function("place => place.querySelector('.main-svg') !== null", arg=place)


# In the browser


def test_every_figure_is_drawn_and_nothing_goes_wrong(made, visit):
    page = visit(made.pages["report.html"])
    scroll_through(page)
    assert page.faults == []
    assert len(page.query_selector_all(".plot")) > 10
    headings = [element.inner_text() for element in page.query_selector_all("section h2")]
    assert headings[: len(CHAPTERS)] == [chapter.title for chapter in CHAPTERS.values()]
    assert {element.get_attribute("id") for element in page.query_selector_all("section")} == {
        *CHAPTERS, "missing", "runs", "definitions",
    }  # fmt: skip
    for link in page.query_selector_all("nav a, section p a[href^='#']"):
        assert page.query_selector(link.get_attribute("href"))
    # Names of runs are shown as text.
    assert page.title().startswith("worldrep: scale mini")
    assert page.query_selector("img") is None
    assert EVIL in page.query_selector("#runs").inner_text()


def test_a_cell_says_what_is_behind_it_and_leads_to_its_run(stored, made, visit):
    (run,) = [r for r in stored.find(stage="evaluate", seed="1") if r.tag("ft") == "ftwb1-6"]
    page = visit(made.pages["report.html"])
    place = page.query_selector("#exp1_heatmaps .plot")
    place.scroll_into_view_if_needed()
    page.wait_for_function("place => place.querySelector('.main-svg') !== null", arg=place)
    place.query_selector(".updatemenu-header").click()
    page.locator("#exp1_heatmaps .updatemenu-dropdown-button", has_text="seed 1").click()
    x, y = page.evaluate(
        """place => {
            const layout = place._fullLayout, box = place.getBoundingClientRect();
            return [box.x + layout._size.l + layout.xaxis.d2p('angle'),
                    box.y + layout._size.t + layout.yaxis._length * 5.5 / 7];
        }""",
        place,
    )
    page.mouse.move(x, y)
    page.mouse.move(x + 2, y + 2)
    hover = page.wait_for_selector("#exp1_heatmaps .hoverlayer .hovertext").text_content()
    assert "ftwb1-6" in hover and "seed: 1" in hover and "0.6" in hover
    assert re.search(r"value: ?6\.31", hover), hover  # 100 ** 0.4, the raw value
    page.mouse.click(x + 2, y + 2)
    page.wait_for_function("window.opened.length > 0")
    address = f"http://127.0.0.1:5000/#/experiments/{stored.experiment_id}/runs/{run.id}"
    assert page.evaluate("window.opened") == [address]


def test_an_analysis_that_the_store_cannot_support_says_why(made, visit):
    page = visit(made.pages["report.html"])
    assert "Nothing to show" in page.query_selector("#cka").inner_text()
    missing = page.query_selector("#missing").inner_text()
    assert "mlflow run . -e finetune -P ft=ftwb1-2 -P seed=1 -P scale=mini" in missing
    assert "mlflow run . -e study -P name=exp1 -P seeds=1,2 -P scale=mini" in missing


def test_printing_draws_what_was_not_in_view(made, visit):
    page = visit(made.pages["report.html"])
    places = len(page.query_selector_all(".plot"))
    assert len(page.query_selector_all(".plot .plot-container")) < places
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert len(page.query_selector_all(".plot .plot-container")) == places and page.faults == []


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
        fault = ValueError("API request to http://me:secret@host:5000/api failed")
        assert stored.words_of(fault) == "API request to http://host:5000/api failed"
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


@pytest.mark.parametrize(
    ("options", "name", "steps"),
    [
        ({}, "exp1", 2 * 29),
        ({"world": "scattered"}, "exp6", 2 * 29),
        ({"width": "wide"}, "exp3", 2 * 14),
        ({"width": "narrow", "world": "scattered"}, "exp3", 2 * 14),
    ],
)
def test_the_study_that_is_named_has_the_models_of_the_page(options, name, steps):
    options = Options(out="unused", scale="smoke", **options)
    words = shlex.split(study_command(options, (1, 2), "my own"))
    assert words[:5] == ["mlflow", "run", ".", "-e", "study"]
    assert words[-4:] == ["--experiment-name", "my own", "--env-manager", "local"]
    typed = dict(word.split("=") for word in words[5:-4] if word != "-P")
    assert typed.pop("name") == name
    graph = expand(load_definition(name).asked_for(**typed, settings={}))
    trained = [step.settings for step in graph.steps.values() if step.kind == "train"]
    assert len(trained) == steps
    for key in ("width", "world", "scale"):
        assert {getattr(settings, key) for settings in trained} == {getattr(options, key)}
    assert {settings.seed for settings in trained} == {1, 2}


def test_no_study_is_named_that_does_not_fit():
    for names in ({"world": "with_atlantis"}, {"width": "wider"}):
        assert study_command(Options(out="unused", **names), (1,), "worldrep") == ""


def test_what_is_missing_is_told_by_command_and_without_one_by_reason():
    rows = [
        *({"command": "do it", "reason": f"because {i}"} for i in range(5)),
        {"command": "", "reason": "gone"},
        {"reason": "gone", "task": "angle", "seed": 1},
        {"command": "do more", "reason": "why not"},
    ]
    result = SimpleNamespace(name="a", missing=missing_table(rows))
    first, second = missing_by_command([result])
    assert (first["command"], first["n"], first["analyses"]) == ("do it", 5, "a")
    assert first["reason"] == "because 0; because 1; because 2; and 2 more"
    assert (second["command"], second["reason"]) == ("do more", "why not")
    (lost,) = missing_for_good([result])
    assert (lost["reason"], lost["n"]) == ("gone", 2)
    assert missing_by_command([]) == missing_for_good([]) == []


# What is drawn


LINKS = Links("http://127.0.0.1:5000", "1")


def test_histograms_have_the_bins_of_the_paper_and_dashed_medians():
    table = pd.DataFrame({"g": ["a"] * 3 + ["b"] * 3, "v": [1.0, 10, 1000, 3, 30, 30]})
    chart = Histogram(name="h", title="H", table=table, value="v", group="g", log=True)
    edges = chart.edges(table)
    assert (edges[0], edges[-1]) == (1.0, pytest.approx(1000)) and len(edges) == 6
    figure = plot_histogram(chart, LINKS)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    for bar in bars:
        assert np.allclose(bar.x - bar.width / 2, edges[:-1])
        assert np.allclose(bar.x + bar.width / 2, edges[1:])
    assert [bar.y.sum() for bar in bars] == [3, 3]
    lines = [trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines"]
    medians = [trace.x[0] for trace in lines]
    assert medians == [10, 30]


def test_a_scatter_joins_its_front_and_keeps_its_units():
    table = pd.DataFrame({"x": [3.0, 1, 2], "y": [1.0, 3, 0], "front": [True, True, False]})
    chart = Scatter(name="s", title="S", table=table, x="x", y="y", front="front", equal=True)
    figure = plot_scatter(chart, LINKS)
    (front,) = [trace for trace in figure.data if trace.line.dash == "dash"]
    assert list(front.x) == [1, 3] and list(front.y) == [3, 1]
    assert figure.layout.yaxis.scaleanchor == "x"


def test_groups_that_share_a_label_lie_apart():
    table = pd.DataFrame({"label": ["p", "q", "p"], "v": [1.0, 2, 3], "g": ["a", "a", "b"]})
    chart = Intervals(name="i", title="I", table=table, label="label", value="v", group="g")
    figure = plot_intervals(chart, LINKS)
    assert [list(trace.y) for trace in figure.data] == [[-0.25, 0.75], [0.25]]
    assert figure.layout.yaxis.ticktext == ("p", "q")


def test_a_strip_is_drawn_side_by_side_and_its_panels_not_again():
    matrices = {1: MATRIX, 2: MATRIX / 2}
    wide, narrow = (
        panels_of(f"{width}_a", "A", PERFORMANCE, matrices, width) for width in ("wide", "narrow")
    )
    alone = Panel("b", "B", PERFORMANCE, MATRIX)
    strip = Strip("a_widths", "A, by width", ("Side by side.",), [wide[-1], narrow[-1]])
    sheet, other = in_places([*wide, *narrow[1:], alone, strip])
    assert sheet.title == "A, by width" and sheet.lines == ("Side by side.", CHOICE)
    assert {which: list(own) for which, own in sheet.choices.items()} == {
        "seed 1": ["wide_a"],
        "seed 2": ["wide_a", "narrow_a"],
        "mean over seeds": ["wide_a", "narrow_a"],
    }
    assert other.part is alone and other.lines == PERFORMANCE.lines
    figure = plot_sheet(sheet, LINKS)
    shown = [trace for trace in figure.data if trace.visible and trace.colorbar.thickness]
    assert [trace.xaxis for trace in shown] == ["x", "x2"]
    assert np.allclose(shown[0].z, MATRIX * 0.75)
    assert [axis.title.text.split("<br>")[0] for axis in figure.select_xaxes()] == [
        "<b>wide</b>", "<b>narrow</b>",
    ]  # fmt: skip


def test_texts_are_escaped_where_they_stand():
    assert (
        escaped("<b>") == "&lt;b&gt;" and escaped(0.123456) == "0.1235" and escaped(4000) == "4,000"
    )
    text = hover_text({"model": EVIL, "n": 3, "gone": None, "run_id": "r"})
    assert "<img" not in text and "<br>" in text and "click" in text and "gone" not in text
    assert (
        "<" not in in_script(json.dumps(EVIL)) and json.loads(in_script(json.dumps(EVIL))) == EVIL
    )
    links = Links("http://127.0.0.1:5000/", "3")
    assert links.of("abc") == "http://127.0.0.1:5000/#/experiments/3/runs/abc"
    assert links.of("") == links.of(None) == ""
