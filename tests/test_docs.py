"""The documentation: its links resolve, its commands exist, its examples run."""

import importlib
import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml

import analysis
import worldrep
from analysis.forgetting import VALUES
from analysis.seeds import SPREAD_COLUMNS
from analysis.statistics.comparison import COMPARISON_COLUMNS
from analysis.store.evaluations import CELL_COLUMNS, SCORE_COLUMNS
from analysis.store.missing import MISSING_COLUMNS
from analysis.store.selection import USED_COLUMNS
from entrypoints.console import COMMANDS
from worldrep.names import FINETUNINGS, PRETRAININGS, TASK_NAMES, parse_model
from worldrep.scales import resolve
from worldrep.settings import FIELDS, OVERRIDABLE, SCALES

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page for kind in ("*.md", "docs/**/*.md", "docs/*.ipynb") for page in ROOT.glob(kind)
)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = [
    pytest.param(page, number, id=f"{page.stem}-{number}")
    for page in sorted([*ROOT.glob("docs/api/*.md"), ROOT / "docs/analysis.md"])
    for number, (language, _) in enumerate(BLOCK.findall(page.read_text()))
    if language == "python"
]


def anchor_of(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text()):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert anchor[1:] in map(anchor_of, headings), f"{target}{anchor}"


def commands_of(page: Path) -> list[str]:
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    lines = [line.strip() for _, block in BLOCK.findall(text) for line in block.splitlines()]
    return [line.partition(" #")[0] for line in lines]


def options_of(module: str) -> set[str]:
    command = importlib.import_module(module).main
    return {name.lstrip("-") for option in command.params for name in option.opts}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page):
    if page.name == "CONTRIBUTING.md":
        pytest.skip("its commands are run by test_contributing.py")
    entries = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    for line in commands_of(page):
        known = line.startswith(("mlflow run .", "python -m ", "worldrep "))
        words = shlex.split(line) if known else []
        if words[:1] == ["worldrep"]:
            words = ["python", "-m", COMMANDS[words[1]][0], *words[2:]]
        if words[:2] == ["mlflow", "run"]:
            entry = words[words.index("-e") + 1] if "-e" in words else "main"
            given = [words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-P"]
            assert set(given) <= {
                *entries[entry]["parameters"],
                *options_of(f"entrypoints.{entry}"),
            }
        elif words and words[2].startswith(("entrypoints.", "analysis.", "benchmarks.")):
            given = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
            assert set(given) <= options_of(words[2]), line


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_reference_lists_every_setting_with_its_value_at_every_scale():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs/reference.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    cells = {row[0].strip("`"): row[1:] for row in rows if len(row) == 3 + len(SCALES)}
    assert list(cells) == list(OVERRIDABLE)
    for name, (group, meaning, *shown) in cells.items():
        spec = FIELDS[name].metadata
        assert [group, meaning] == [spec["group"], spec["help"]]
        for scale, text in zip(SCALES, shown, strict=True):
            models = (resolve(parse_model(model), scale=scale) for model in ("pt1", "pt1_ftwb1-1"))
            values = dict.fromkeys(getattr(settings, name) for settings in models)
            kind = type(next(iter(values)))
            found = [kind(value) for value in text.replace(",", "").split("; ")]
            assert found == list(values), (name, scale)


def test_the_reference_lists_the_tasks_of_every_pair_and_triple():
    listed = {}
    for line in (ROOT / "docs/reference.md").read_text().splitlines():
        if found := re.match(r"\| `((?:ft|pt)[23])-k`.* \| (.*) \|$", line):
            for number, tasks in re.findall(r"(\d+): ([\d+]+)", found[2]):
                listed[f"{found[1]}-{number}"] = [TASK_NAMES[int(k) - 1] for k in tasks.split("+")]
    known = {name: [*tasks] for name, tasks in {**FINETUNINGS, **PRETRAININGS}.items()}
    assert listed == {name: known[name] for name in known if re.match("(ft|pt)[23]-", name)}


def test_the_columns_of_tables_are_explained():
    page = (ROOT / "docs/analysis.md").read_text()
    section = page.partition("## Columns of the tables")[2].partition("\n## ")[0]
    named = {column for text in re.findall(r"`([^`]+)`", section) for column in text.split()}
    tables = [CELL_COLUMNS, SCORE_COLUMNS, COMPARISON_COLUMNS, SPREAD_COLUMNS, VALUES]
    tables += [MISSING_COLUMNS, USED_COLUMNS]
    assert named >= {*itertools.chain(*tables)}


def test_every_public_object_has_a_page():
    text = (ROOT / "docs/api/README.md").read_text()
    for name in (*worldrep.__all__, *analysis._EXPORTS):
        assert name.startswith("_") or f".{name}`" in text, name


@pytest.fixture(scope="module")
def working_folder(new_store):
    """A folder with an untrained model in `model`, and a filled store, as the pages assume."""
    from synthetic import SyntheticStore

    from worldrep.model.qwen2 import build_model, save_model

    with new_store("docs") as (uri, _):
        synthetic = SyntheticStore(uri)
        synthetic.tuned("ftwb1-1", synthetic.base(42), 0.5, 42)
        save_model(build_model(resolve(parse_model("pt1"), scale="mini")), Path("model"))
        yield


@pytest.mark.parametrize("page, number", PYTHON)
def test_python_examples_run(page, number, working_folder):
    code = BLOCK.findall(page.read_text())[number][1]
    exec(compile(code, page.name, "exec"), {"__name__": "__main__"})
