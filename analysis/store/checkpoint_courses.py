"""Time courses of fine-tunings: values on standard and Atlantis questions by step.

From an evaluation of several checkpoints where there is one, which begins with the evaluation of
the base; else from the validations during the training, which begin at step 0. The two have
different questions and are never joined in one course. Each course starts from its own base.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.statistics.forgetting import normalized_change
from analysis.store.changes import Values, standard_values
from analysis.store.evaluations import Improvements
from analysis.store.selection import USED_COLUMNS, run_table, training_id, used_runs
from analysis.store.source import Curve, Source
from worldrep.data.tasks import TASKS
from worldrep.evaluation.improvement import normalized_improvement
from worldrep.names import TASK_NAMES, parse_model
from worldrep.tracking import StoredRun

EVALUATED, VALIDATED = "evaluated checkpoints", "validation while training"
ONLY_LAST = "no checkpoints but the last are evaluated"
NO_BASE = "the checkpoints are evaluated, but not the base that they started from"
OTHER_QUESTIONS = "the checkpoints are evaluated with another number of questions than the base"
COURSE_SPLITS = ("standard", "atlantis")
POINT_COLUMNS = [
    "model", "ft", "seed", "task", "trained", "split", "step", "value", "normalised",
    "measured_by", "rows", "run_id", "model_run_id",
]  # fmt: skip


@dataclass(frozen=True)
class Courses:
    """points: one row per model, seed, split, task and step, POINT_COLUMNS; `normalised` is the
    normalised change of a standard value and the normalised improvement of an Atlantis one, both
    from the values at step 0 of the same course; `rows` is the number of questions behind a value.

    runs: those that the values are from, indexed by run_id, USED_COLUMNS; absent: rows for
    `missing_table`.
    """

    points: pd.DataFrame
    runs: pd.DataFrame
    absent: list[dict[str, Any]]


@dataclass(frozen=True)
class _Course:
    """Where one model's course comes from. curves: (split, task) -> (step, value)."""

    measured_by: str
    rows: str
    run: StoredRun
    why: str
    curves: dict[tuple[str, str], Curve]


def read_courses(source: Source, found: Improvements, names: dict[str, str]) -> Courses:
    """The courses of the trained models of some improvement cells.

    names: tags that the runs have in common, as for the evaluations.
    """
    reader = _Reader(source, found, names)
    points: list[dict[str, Any]] = []
    used: list[_Course] = []
    absent: list[dict[str, Any]] = []
    for (model, seed), own in found.cells.groupby(["model", "seed"], sort=False):
        training = reader.training(model, seed, own["model_run_id"].iloc[0])
        if training is None:
            continue
        course, gaps = reader.course(model, seed, training, own["run_id"].iloc[0])
        for reason, command in gaps.items():
            gap = {"matrix": "course", "model": own["ft"].iloc[0], "seed": seed}
            absent.append(gap | {"task": "", "reason": reason, "command": command})
        if course is None:
            continue
        trained = own.set_index("task")["trained"]
        key = {"model": model, "ft": own["ft"].iloc[0], "seed": seed}
        points += [key | row | {"trained": trained[row["task"]]} for row in _rows(course)]
        used.append(course)
    table = run_table((course.run for course in used), found.trained.current)
    table = table.assign(why=[course.why for course in used])
    runs = pd.concat([table[USED_COLUMNS], reader.base_runs])
    return Courses(pd.DataFrame(points, columns=POINT_COLUMNS), runs, absent)


class _Reader:
    """Finds the runs behind a model's course."""

    def __init__(self, source: Source, found: Improvements, names: dict[str, str]) -> None:
        self._source, self._found = source, found
        self._commands = found.trained.commands
        self._values: Values = standard_values(found)
        self._evaluations: dict[str, list[StoredRun]] = {}
        for run in source.runs(stage="evaluate", **names):
            if run.tag("checkpoints") not in ("", "last"):
                self._evaluations.setdefault(run.tag("model_run_id"), []).append(run)
        self._bases: set[str] = set()

    def training(self, model: str, seed: int, model_run_id: str) -> StoredRun | None:
        """The training whose final values are used; without such values, the model's own."""
        trained = self._found.trained
        return trained.runs.get(model_run_id or trained.standing.get((model, seed), ""))

    def course(
        self, model: str, seed: int, training: StoredRun, final: str
    ) -> tuple[_Course | None, dict[str, str]]:
        """A model's course, and what is lacking: reason -> command.

        final: the evaluation of its last checkpoint, empty for none.
        """
        gaps: dict[str, str] = {}
        evaluate_all = self._evaluate_all(model, seed, training)
        evaluated = self._evaluations.get(training.id, [])
        base = self._base(training) if evaluated else ""
        alike = self._alike(evaluated, base) if base else []
        if not evaluated:
            gaps[ONLY_LAST] = evaluate_all
        elif not base:
            base_run_id = training.tag("base_run_id")
            gaps[NO_BASE] = self._commands.evaluate_base(parse_model(model), seed, base_run_id)
        elif not alike:
            gaps[OTHER_QUESTIONS] = evaluate_all
        elif not final and all(run.tag("checkpoints") != "all" for run in alike):
            gaps["the last checkpoint is not evaluated: the course ends early"] = evaluate_all
        course = self._evaluated(alike, base, final) if alike else self._validated(training)
        short = ["/".join(suite) for suite, curve in course.curves.items() if len(curve) < 2]
        if len(short) == len(course.curves):
            return None, {
                f"{why}; it has no validations from step 0 on": how for why, how in gaps.items()
            }
        if short:
            again = self._commands.again(course.run.id, evaluate_all) if alike else evaluate_all
            gaps[f"run {course.run.id} has no course of {', '.join(short)}"] = again
        return course, gaps

    def _evaluate_all(self, model: str, seed: int, training: StoredRun) -> str:
        if self._found.trained.standing.get((model, seed)) == training.id:
            return self._commands.evaluate(parse_model(model), seed, checkpoints="all")
        return self._commands.evaluate_run(training.id, checkpoints="all")

    def _base(self, training: StoredRun) -> str:
        """The evaluation of the base that a training started from, as for the final values."""
        bases = self._found.evaluations.bases
        bases = bases[bases["seed"] == int(training.tag("seed"))]
        if training.tag("base_run_id"):
            bases = bases[bases["model_run_id"] == training.tag("base_run_id")]
        return bases.index[0] if len(bases) else ""

    def _alike(self, runs: list[StoredRun], base: str) -> list[StoredRun]:
        """Those of the evaluations that have as many questions as that of the base."""
        rows = _test_rows(self._found.evaluations.sources[base])
        return [run for run in runs if _test_rows(run) == rows]

    def _evaluated(self, runs: list[StoredRun], base: str, final: str) -> _Course:
        """The course of the evaluation with most steps, the newest of equals; from its base on.

        final: the evaluation of the last checkpoint, which ends a course of listed steps.
        """
        steps = {run.id: len(self._curve(run, f"standard/{TASK_NAMES[0]}/mean")) for run in runs}
        run = max(runs, key=lambda run: steps[run.id])  # the first, which is the newest
        curves = {}
        for split, task in _suites():
            own = dict(self._curve(run, f"{split}/{task}/mean"))
            last = self._found.evaluations.sources.get(final)
            if last and _test_rows(last) == _test_rows(run) and run.tag("checkpoints") != "all":
                own = dict(self._curve(last, f"{split}/{task}/mean")) | own
            before = self._values.get((base, split, task))
            curves[split, task] = [] if before is None else sorted({0: before, **own}.items())
        self._bases.add(base)
        why = f"time course: checkpoints {run.tag('checkpoints')}"
        why += f", the one with most steps of {len(runs)}" if len(runs) > 1 else ""
        return _Course(EVALUATED, _test_rows(run), run, why, curves)

    def _validated(self, training: StoredRun) -> _Course:
        curves = {
            suite: self._curve(training, f"val/{'/'.join(suite)}/mean") for suite in _suites()
        }
        from_start = {
            suite: curve if curve[:1] and curve[0][0] == 0 else []
            for suite, curve in curves.items()
        }
        rows = training.params.get("cfg.val_rows", "?")
        return _Course(VALIDATED, rows, training, "time course: its validations", from_start)

    def _curve(self, run: StoredRun, metric: str) -> Curve:
        return self._source.curve(run.id, metric) if metric in run.metrics else []

    @property
    def base_runs(self) -> pd.DataFrame:
        return used_runs(self._found.evaluations.runs, self._bases)


def _test_rows(run: StoredRun) -> str:
    """How many questions of each task an evaluation asks: those of another number are others."""
    return run.params.get("cfg.test_rows", "?")


def _suites() -> Iterator[tuple[str, str]]:
    return ((split, task) for split in COURSE_SPLITS for task in TASK_NAMES)


def _rows(course: _Course) -> Iterator[dict[str, Any]]:
    for (split, task), curve in course.curves.items():
        standard = course.curves["standard", task]
        for step, value in curve:
            yield {
                "task": task,
                "split": split,
                "step": step,
                "value": value,
                "normalised": _normalised(split, task, value, curve[0][1], standard),
                "measured_by": course.measured_by,
                "rows": course.rows,
                "run_id": course.run.id,
                "model_run_id": training_id(course.run),
            }


def _normalised(split: str, task: str, value: float, start: float, standard: Curve) -> float:
    accuracy = TASKS[task].accuracy
    if split == "standard":
        return normalized_change(value, start, accuracy)
    before = standard[0][1] if standard else float("nan")
    return normalized_improvement(value, start, before, accuracy)
