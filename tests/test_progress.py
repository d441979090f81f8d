"""Progress: bars on a terminal, lines elsewhere, the run's metric and description, interrupts."""

import os
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from entrypoints import evaluate, extract, pretrain
from worldrep import progress
from worldrep.data.sets import load_rows, maker_of, training_sets
from worldrep.executors import ExecutorOptions
from worldrep.names import ModelName
from worldrep.progress import Lines, Progress, reporting
from worldrep.scales import resolve
from worldrep.stages.train import train_model
from worldrep.studies import expand, named_study
from worldrep.studies.driver import run_study
from worldrep.studies.study_run import over_seeds
from worldrep.tracking import Store

SMOKE = ["--scale", "smoke"]
LINE = r"{}: {} [\d,]+ of {} \(\d+%\)"


def run(command, *arguments):
    done = CliRunner().invoke(command.main, [*arguments, *SMOKE], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture
def often(monkeypatch, tmp_path):
    """Every report is due as a line."""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.0)
    monkeypatch.setenv("WORLDREP_CACHE", str(tmp_path / "cache"))  # the rows are made


def test_without_a_terminal_work_writes_lines_and_its_run_has_them(store_uri, often):
    for command, arguments, title, unit, total in (
        (pretrain, (), "pt1 s42 pretrain", "step", "28"),
        (evaluate, ("--model", "pt1"), "pt1 s42 evaluate", "question", "224"),
        (extract, ("--model", "pt1"), "pt1 s42 extract", "table", "1"),
    ):
        done = run(command, *arguments)
        lines = done.stderr.splitlines()
        assert all(len(line) < 200 and "\r" not in line for line in lines)
        assert sum(bool(re.match(LINE.format(title, unit, total), line)) for line in lines) >= 1
        (found,) = Store.connect().find(stage=title.split()[-1])
        assert found.metrics["progress"] == 1.0
        note = found.tags["mlflow.note.content"]
        assert re.match(rf"{title}: {total} {unit}s in \d+ seconds?.*\.$", note), note
        if command is pretrain:
            assert re.search(r"loss \d\.\d+, [\d,]+ tokens/s, \d+ seconds? left", done.stderr)
            assert re.search(
                LINE.format(r"rows of angle \(world, pretrain\)", "row", "64"), done.stderr
            )
            history = Store.connect().history(found.id, "progress")
            assert history == [(step, step / 28) for step in range(1, 29)]


def test_a_run_says_where_its_work_ended_and_later_that_it_is_done(store_uri, often, monkeypatch):
    def interrupt(found):
        if found.done == 10:
            raise KeyboardInterrupt

    store, settings = Store.connect(), resolve(ModelName("pt1"), scale="smoke")
    with pytest.raises(KeyboardInterrupt):
        train_model(store, settings, progress=interrupt)
    (killed,) = store.find(stage="pretrain")
    ended = killed.tags["mlflow.note.content"]
    assert ended.startswith("pt1 s42 pretrain: ended after step 10 of 28 (36%), loss "), ended
    monkeypatch.setattr(progress, "LINE_SECONDS", 30.0)  # no line is due any more
    train_model(store, settings)
    note = store.get(killed.id).tags["mlflow.note.content"]
    assert note.startswith("pt1 s42 pretrain: 28 steps in "), note


def test_work_that_ends_before_the_first_line_leaves_no_trace(store_uri):
    done = run(pretrain)
    (found,) = Store.connect().find(stage="pretrain")
    assert "progress" not in found.metrics and "mlflow.note.content" not in found.tags
    assert done.stderr == ""


def test_lines_come_in_time_and_at_each_quarter(monkeypatch):
    now, lines = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    follow = Lines(lambda _, line: lines.append((now[0], line)))
    for done in range(101):  # 100 steps of 0.4 s, then of 4 s: a quarter after 10 s, then lines
        now[0] += 0.4 if done < 40 else 4
        follow(Progress("work", done, 100, "loss 1"))
    times = [at for at, _ in lines]
    assert lines[0][1] == "work: step 25 of 100 (25%), loss 1, 30 seconds left"
    assert max(b - a for a, b in zip(times, times[1:], strict=False)) <= 34
    shares = [int(re.search(r"\((\d+)%\)", line)[1]) for _, line in lines]
    assert all(any(k <= share <= k + 3 for share in shares) for k in (25, 50, 75, 100))
    assert len(lines) < 15


def test_steps_in_worker_processes_are_named_and_the_study_counts(store_uri, often, capfd):
    graph = expand(named_study("pt1,pt1_ftwb1-1").asked_for(scale="smoke", settings={}))
    run_study(Store.connect(), graph, ExecutorOptions(executor="processes", workers=2))
    errors = capfd.readouterr().err
    for title, unit in (("pt1 s42 pretrain", "step"), ("ftwb1-1 s42 evaluate", "question")):
        assert re.search(LINE.format(title, unit, r"\d+"), errors), errors
    assert re.search(LINE.format("study pt1,pt1_ftwb1-1", "step", "6"), errors)
    (study,) = Store.connect().find(stage="study")
    assert study.metrics["progress"] == 1.0


def test_a_summary_over_seeds_leaves_progress_out():
    assert "progress/mean_over_seeds" not in over_seeds([{"progress": 1.0, "a/mean": 2.0}])


def test_rows_are_counted_while_they_are_made():
    settings = resolve(ModelName("pt1-5"), scale="smoke", overrides={"pretrain_rows": 5000})
    maker = maker_of(settings)
    (rows,) = training_sets(settings, maker.world)
    found: list[Progress] = []
    with reporting(found.append):
        load_rows(maker, rows)
    assert found[-1].done == found[-1].total == 5000 and found[-1].unit == "row"
    assert [p.done for p in found] == sorted(p.done for p in found)


def test_a_terminal_shows_bars_and_no_lines(store_uri):
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    command = [sys.executable, "-m", "entrypoints.pretrain", *SMOKE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    process.communicate()
    assert process.returncode == 0
    assert "pt1 s42 pretrain: 100%|" in shown.decode() and "step" in shown.decode()
    assert "rows of" not in shown.decode()  # made in less than a second


@pytest.mark.slow
def test_an_interrupt_says_what_is_kept_and_the_command_that_goes_on(store_uri):
    longer = ["--epochs", "24", "--n_checkpoints", "12"]
    process = subprocess.Popen(
        [sys.executable, "-m", "entrypoints.pretrain", "--seed", "3", *SMOKE, *longer],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while not [*Path().glob("mlruns/*/*/artifacts/checkpoints/step-*/manifest.json")]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == 130
    told = re.search("pt1 s3 pretrain: interrupted; the checkpoint after step (.*) is kept", output)
    sentence = errors.splitlines()[-1]
    assert sentence.startswith("Interrupted: finished work and the last checkpoint of a training")
    words = shlex.split(sentence.partition("it goes on with ")[2])
    assert words[:5] == ["mlflow", "run", ".", "-e", "pretrain"]
    typed = [f"--{word}" for word in words[5:-2] if word != "-P"]
    again = CliRunner().invoke(pretrain.main, typed, catch_exceptions=False)
    assert f"resumed after step {told[1].replace(',', '')}" in again.output
    assert [run.status for run in Store.connect().find(stage="pretrain")] == ["FINISHED"]
