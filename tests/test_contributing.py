"""The worked examples of CONTRIBUTING.md, applied to a copy of the source."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = {
    heading: re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for heading, text in re.findall(r"^## (A new .*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
}


def apply(diff: str, tree: Path) -> None:
    """Apply a diff whose hunks have no line numbers: each must fit in one place."""
    for hunk in re.split(r"^(?=--- )", diff, flags=re.MULTILINE)[1:]:
        head, _, body = hunk.partition("\n")
        path = tree / head.removeprefix("--- a/")
        lines = body.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        text = path.read_text()
        assert text.count(old) == 1, f"{path.name} has not one place for:\n{old}"
        path.write_text(text.replace(old, new))


# Commands one after the other in one process, which imports torch once.
COMMANDS = """
import runpy, shlex, sys
for line in sys.argv[1].splitlines():
    _, _, module, *arguments = shlex.split(line)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
"""


def run(tree: Path, code: str, *arguments: str) -> None:
    environment = os.environ | {"PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree}"}
    command = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("heading", SECTIONS)
def test_the_example_works(heading, store_uri, tmp_path):
    tree = tmp_path / "tree"
    for name in ("src", "analysis", "entrypoints"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for language, block in SECTIONS[heading]:
        path = re.match(r"# (\S+/\S+\.\w+)\n", block)
        if language == "diff":
            apply(block, tree)
        elif path:
            (tree / path[1]).write_text(block)
        elif language == "python":
            run(tree, block)
        else:
            run(tree, COMMANDS, block)
