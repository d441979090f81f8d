"""Tags, params, metrics and times of runs are garbled: a command never ends with a traceback.

WORLDREP_GARBLED says how many `make endure` tries; CI tries a few.
"""

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from analysis.command import open_source
from analysis.options import Options
from analysis.report import CHAPTERS
from entrypoints import evaluate, extract, finetune, pretrain, study
from worldrep.errors import InputError, StateError
from worldrep.tracking import Store

pytestmark = pytest.mark.slow

FEW, MANY = 2, int(os.environ.get("WORLDREP_GARBLED", "100"))
SMOKE = ["--scale", "smoke"]
VALUES = [
    "", "abc", "nan", "inf", "-1", "0", "1e400", "9" * 5000, "99999999999", "32503680000", "1.5",
    "a b c", "1 x 1 1", "1 2 3 4 5", "1,2", "é\x1b[31m", "../..", "[]", "none", "pt9", "x" * 7000,
]  # fmt: skip
TAGS = [
    "heartbeat", "owner", "closed_claim", "seed", "model", "pretrain", "ft", "stage", "scale",
    "width", "world", "strategy", "tasks", "configuration", "world_digest", "base_run_id",
    "model_run_id", "checkpoints", "processes", "error",
]  # fmt: skip
CLAIMS = ["claim.x", "claim.x=y", "claim.", "claim.1", "claim.01", "claim.-1", "claim.7"]


class Garbler:
    """A store with two models; the database is restored after each garbling."""

    def __init__(self):
        Path("two.yaml").write_text("models: [pt1, pt1_ftwb1-1]\nscale: smoke\nseeds: [42]\n")
        self.command(study.main, "--name", "two.yaml", "--executor", "inline")
        stages = ("pretrain", "finetune", "evaluate", "extract", "summary", "study")
        self.runs = [run for stage in stages for run in Store.connect().find(stage=stage)]
        self.copy("mlflow.db", "whole.db")

    def copy(self, source, target):
        with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
            one.backup(other)

    def command(self, function, *arguments):
        result = CliRunner().invoke(function, [*arguments])
        ended = result.exception is None or isinstance(result.exception, SystemExit)
        assert ended and "Traceback" not in result.output, (arguments, result.exc_info)
        assert result.exit_code in (0, 1, 2)

    def garble(self, rng):
        """Change one thing of one run, and return what."""
        run, value = rng.choice(self.runs), rng.choice(VALUES)
        put = "insert or replace into {} (key, value, run_uuid) values (?, ?, ?)"
        kind = rng.choice(["tag", "tag", "param", "claim", "metric", "time", "status"])
        if kind == "tag":
            change = put.format("tags"), f"worldrep.{rng.choice(TAGS)}", value
        elif kind in ("param", "claim"):
            key = rng.choice(sorted(run.params) if kind == "param" and run.params else CLAIMS)
            change = put.format("params"), key, value
        elif kind == "metric":
            number = rng.choice([1e308, -1.0, 0.0, 1e30])
            change = "update latest_metrics set value = ? where run_uuid = ?", number
        elif kind == "time":
            moment = rng.choice([0, -1, 2**62, None, 10**14])
            change = "update runs set end_time = ? where run_uuid = ?", moment
        else:
            status = rng.choice(["FAILED", "KILLED", "SCHEDULED"])
            change = "update runs set status = ? where run_uuid = ?", status
        with closing(sqlite3.connect("mlflow.db")) as connection, connection:
            connection.execute(change[0], [*change[1:], run.id])
        return run.stage, *change

    def use(self):
        """Give all commands that meet the runs."""
        base = next(run.id for run in self.runs if run.stage == "pretrain")
        self.command(study.main, "--name", "two.yaml", "--action", "status")
        self.command(evaluate.main, "--run_id", base)
        self.command(extract.main, "--model", "pt1", *SMOKE)
        self.command(pretrain.main, *SMOKE)
        self.command(finetune.main, "--ft", "ftwb1-1", *SMOKE)
        self.command(study.main, "--name", "two.yaml", "--executor", "inline")
        options = Options(Path("figures"), scale="smoke")
        with open_source(options) as source:
            for chapter in CHAPTERS.values():
                try:
                    chapter.analyse(source, options)
                except (StateError, InputError):
                    continue
        store = Store.connect()
        running = store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'")
        return [run.info.run_id for run in running]


@pytest.fixture(scope="module")
def garbler(new_store):
    with new_store("garbled"):
        yield Garbler()


def try_garbled(garbler, n, rng):
    for _ in range(n):
        try:
            how = garbler.garble(rng)
            assert garbler.use() == [], how
        finally:
            garbler.copy("whole.db", "mlflow.db")


def test_a_garbled_run_ends_no_command_with_a_traceback(garbler):
    try_garbled(garbler, FEW, random.Random(0))


@pytest.mark.endure
def test_many_garbled_runs(garbler, tried):
    tried("garbled tags, params, metrics and times of runs", MANY)
    try_garbled(garbler, MANY, random.Random(1))
