"""Command lines and files made at random, given to the real commands in an empty store."""

from pathlib import Path

import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoints import evaluate, extract, finetune, main, pretrain, study, sweep
from worldrep.names import FINETUNINGS, PRETRAININGS, STRATEGIES, WIDTHS
from worldrep.settings import FIELDS, OVERRIDABLE, SCALES, VARIANTS

COMMANDS = {
    command.__name__.rpartition(".")[2]: command.main
    for command in (evaluate, extract, finetune, main, pretrain, study, sweep)
}
NAMES = (*PRETRAININGS, *FINETUNINGS, *STRATEGIES, *WIDTHS, *VARIANTS, *SCALES, "demo", "pt1_ft1-1")
WORDS = (*NAMES, "last", "all", "none", "auto", "1/1", "2/7", "best", "true", "ray", "processes")

numbers = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(), st.sampled_from(["9" * 5000, "1e999", "1_0", "٣"])
).map(str)
plain = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
values = st.one_of(st.sampled_from(WORDS), numbers, plain, st.just("x" * 10_000), st.just("/"))
lists = st.lists(values, max_size=4).map(",".join)

FREE = {"yes", "workers", "out", "experiment"}  # confirm work, start processes, write elsewhere


@st.composite
def command_lines(draw):
    """The name of a command, and its arguments with values that it may not expect."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    options = [p.name for p in COMMANDS[name].params if p.name not in FREE]
    chosen = draw(st.lists(st.sampled_from(options), unique=True, max_size=3))
    typed = [f"--{option}={draw(st.one_of(values, lists))}" for option in chosen]
    scale = [] if "scale" in chosen else ["--scale=smoke"]
    return name, [*scale, *typed]


keys = st.one_of(st.sampled_from(OVERRIDABLE), plain, numbers)
trees = st.recursive(
    values, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
)
parts = ("about", "models", "seeds", "scale", "settings", "widths", "worlds", "steps")
studies = st.dictionaries(
    st.sampled_from(parts) | keys,
    st.one_of(st.sampled_from(["pt1", "smoke", "1"]), lists, trees),
    max_size=6,
)
PIECES = ("&a ", "*a", "[", "{", "? ", "- ", ": ", "\t", "---\n", "!!x ", "<<: ", "'", '"')
PIECES += ("2026-13-45", "\x07", "\ud7ff", "%YAML 1.1\n")
ranges = st.dictionaries(st.sampled_from(["low", "high", "log", "step", "x"]), values, max_size=4)
spaces = st.dictionaries(st.sampled_from(list(FIELDS)) | keys, ranges | trees, max_size=3)


@st.composite
def yaml_texts(draw, content):
    """A YAML text of some content, or a damaged one."""
    text = yaml.safe_dump(draw(content), allow_unicode=True)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(PIECES))
        text = text[:at] + piece + text[at + draw(st.integers(0, 3)) :]
    return text.encode()


@st.composite
def csv_files(draw):
    """A CSV of cities in which some cells or bytes are not what they should be."""
    rows = [[f"City {i}", str(100 * i), str(-30 * i), "Here"] for i in range(8)]
    for _ in range(draw(st.integers(0, 3))):
        row, cell = draw(st.integers(0, 7)), draw(st.integers(0, 3))
        rows[row][cell] = draw(st.one_of(values, st.sampled_from(['"', "a\nb", "atlantis", "1.5"])))
    content = "\n".join(map(",".join, [["name", "x", "y", "region"], *rows])).encode()
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=3)) + content[at + 1 :]
    return content.decode("latin-1").encode(draw(st.sampled_from(["latin-1", "utf-8", "utf-16"])))


def check(name, arguments):
    """Run a command: it succeeds, or says in one line what is wrong; nothing else."""
    result = CliRunner().invoke(COMMANDS[name], arguments)
    crashed = result.exception and not isinstance(result.exception, SystemExit)
    assert not crashed, (arguments, result.exception)
    assert result.exit_code in (0, 1, 2), (arguments, result.output)
    if result.exit_code:
        *before, last = result.stderr.splitlines()
        said = [line for line in before if "Usage:" not in line and "Try" not in line and line]
        assert last.startswith("Error: ") and last.isprintable() and not said, result.stderr
        assert len(last) < 4100 and "Traceback" not in result.output


def check_file(name, option, suffix, content, *arguments):
    """Run a command with a file."""
    path = Path(f"mine{suffix}")
    path.write_bytes(content)
    check(name, ["--scale=smoke", f"--{option}={path}", *arguments])


CASES = {
    "command lines": (command_lines(), lambda line: check(*line)),
    "studies": (
        yaml_texts(studies),
        lambda content: check_file("study", "name", ".yaml", content, "--action=plan"),
    ),
    "search spaces": (
        yaml_texts(spaces),
        lambda content: check_file("sweep", "space", ".yaml", content, "--ft=ftwb1-1"),
    ),
    "files of cities": (
        csv_files(),
        lambda content: check_file("pretrain", "cities", ".csv", content),
    ),
}


def try_many(case, examples, **options):
    """Try a number of examples of a case, by default the same ones each time."""
    strategy, do = CASES[case]
    settings(max_examples=examples, **options)(given(strategy)(do))()
