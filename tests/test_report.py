"""The page, in a real browser: no errors, the mouse finds what it should, names are text."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import sync_playwright
from synthetic import SyntheticStore

from analysis.html.hover import Links, escaped, hover_text
from analysis.html.page import in_script
from analysis.options import Options
from analysis.reading.source import Source
from analysis.report import CHAPTERS, main, report
from worldrep.errors import InputError, StateError
from worldrep.tracking import Store

EVIL = "</script><img src=x onerror=\"document.title='taken'\"> <b>&amp;</b>"


@pytest.fixture
def synthetic(store_uri):
    return SyntheticStore(store_uri)


def of_store(**options):
    source = Source(Store.connect())
    return report(source, Options(out="unused", **options))


def a_few(synthetic, seeds=(1, 2)):
    for seed in seeds:
        base = synthetic.base(seed)
        for k, improvement in ((1, 0.8), (6, 0.6)):
            synthetic.tuned(f"ftwb1-{k}", base, improvement, seed)
        synthetic.tuned("ftwb2-13", base, 0.9, seed)


@pytest.fixture(scope="session")
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "the tests of the report need Chromium"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a page without any network; what went wrong is collected in page.faults."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, offline=True)

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


def test_every_figure_is_drawn_and_nothing_goes_wrong(synthetic, visit):
    a_few(synthetic)
    page = visit(of_store().pages["report.html"])
    scroll_through(page)
    assert page.faults == []
    assert len(page.query_selector_all(".plot")) > 10
    headings = [element.inner_text() for element in page.query_selector_all("section h2")]
    assert headings[: len(CHAPTERS)] == [chapter.title for chapter in CHAPTERS.values()]
    assert {element.get_attribute("id") for element in page.query_selector_all("section")} == {
        *CHAPTERS, "missing", "runs", "definitions",
    }  # fmt: skip
    for link in page.query_selector_all("nav a"):
        assert page.query_selector(link.get_attribute("href"))


def test_a_cell_says_what_is_behind_it_and_leads_to_its_run(synthetic, visit):
    a_few(synthetic, seeds=(1,))
    (run,) = [r for r in Store.connect().find(stage="evaluate") if r.tag("ft") == "ftwb1-6"]
    page = visit(of_store().pages["report.html"])
    place = page.query_selector("#exp1_heatmaps .plot")
    place.scroll_into_view_if_needed()
    page.wait_for_function("place => place.querySelector('.main-svg') !== null", arg=place)
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
    with page.context.expect_page() as opened:
        page.mouse.click(x + 2, y + 2)
    experiment = Store.connect().experiment_id
    assert (
        opened.value.url == f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run.id}"
        or (
            "chrome-error" in opened.value.url  # nothing answers there
        )
    )


def test_names_with_html_in_them_are_shown_as_text(synthetic, visit):
    a_few(synthetic)
    store = Store.connect()
    for run in store.find(stage="evaluate"):
        store.client.set_tag(run.id, "mlflow.runName", EVIL)
    page = visit(of_store().pages["report.html"])
    scroll_through(page)
    assert page.faults == [] and page.title().startswith("worldrep: scale mini")
    assert page.query_selector("img") is None
    assert EVIL in page.query_selector("#runs").inner_text()


def test_an_analysis_that_the_store_cannot_support_says_why(synthetic, visit):
    a_few(synthetic, seeds=(1,))
    page = visit(of_store().pages["report.html"])
    assert "Nothing to show" in page.query_selector("#cka").inner_text()
    missing = page.query_selector("#missing").inner_text()
    assert "mlflow run . -e finetune -P ft=ftwb1-2 -P seed=1 -P scale=mini" in missing


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


def test_wrong_input_is_one_sentence(synthetic):
    with pytest.raises(StateError, match="has no finished evaluation of scale mini"):
        of_store()
    a_few(synthetic, seeds=(1,))
    with pytest.raises(InputError, match="server='javascript:alert"):
        report(Source(Store.connect()), Options(out="unused"), "javascript:alert(1)")


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
