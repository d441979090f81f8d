"""What is left of a study in tokens and time, from the speed of the runs that are finished."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import median

from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.sets import maker_of, training_sets
from worldrep.data.tokens import PAD
from worldrep.settings import Settings
from worldrep.studies.graph import Step
from worldrep.studies.states import DONE, StepState
from worldrep.tracking import StoredRun

SAMPLE_ROWS = 256
SPEED = "train/tokens_per_second"


@dataclass(frozen=True)
class Left:
    """Work that is not done.

    tokens: real ones that the trainings will read; seconds: of one worker after the other, None
    if nothing like it was finished yet; unknown: how many steps that is; basis: where the speed
    comes from.
    """

    steps: int
    tokens: int
    seconds: float | None
    unknown: int
    basis: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@lru_cache(maxsize=256)
def _tokens_per_row(maker: RowMaker, task: str, pool: str) -> float:
    """Mean length of a row, from a sample."""
    sample = maker.tokens(RowSet(task, pool, "val", SAMPLE_ROWS))
    return float((sample != PAD).sum() / len(sample))


def training_tokens(settings: Settings) -> int:
    """Real tokens that a training reads, all epochs together; about 1% off."""
    maker = maker_of(settings)
    sets = training_sets(settings, maker.world)
    read = sum(rows.rows * _tokens_per_row(maker, rows.task, rows.pool) for rows in sets)
    return round(read * settings.epochs)


class Speeds:
    """Seconds that a step should take, from finished runs of its kind, scale and width."""

    def __init__(self, runs: Iterable[StoredRun]) -> None:
        tokens: dict[str, list[float]] = {}
        seconds: dict[tuple[str, str], list[float]] = {}
        for run in runs:
            if run.status != "FINISHED":
                continue
            width = run.tag("width")
            if SPEED in run.metrics:
                tokens.setdefault(width, []).append(run.metrics[SPEED])
            elif run.tag("checkpoints") == "last" and not (run.claim and run.claim.number):
                seconds.setdefault((run.tag("stage"), width), []).append(run.ended - run.started)
        self._tokens = {width: median(values) for width, values in tokens.items()}
        self._seconds = {key: median(values) for key, values in seconds.items()}
        self.n_trainings = sum(map(len, tokens.values()))
        self.n_others = sum(map(len, seconds.values()))

    def of(self, step: Step) -> float | None:
        """Seconds for a step; None if no run of its kind and width is finished."""
        width = step.settings.width
        if step.kind != "train":
            return self._seconds.get((step.kind, width))
        speed = self._tokens.get(width)
        return training_tokens(step.settings) / speed if speed else None


def what_is_left(states: Mapping[str, StepState], runs: Sequence[StoredRun]) -> Left:
    """Tokens and time of the steps that are not done."""
    speeds = Speeds(runs)
    open_steps = [state.step for state in states.values() if state.state != DONE]
    times = [speeds.of(step) for step in open_steps]
    known = [seconds for seconds in times if seconds is not None]
    tokens = sum(training_tokens(step.settings) for step in open_steps if step.kind == "train")
    seconds = sum(known) if known or not open_steps else None
    unknown = len(times) - len(known)
    basis = (
        f"the medians of {speeds.n_trainings} finished trainings and {speeds.n_others} evaluations "
        "and extractions of the same scale, by width"
    )
    return Left(len(open_steps), tokens, seconds, unknown, basis)
