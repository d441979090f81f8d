"""Compare the memory, disk space and time that work needs with this machine, before it starts.

Memory and disk space are computed from the settings. The time is estimated from finished runs of
the same scale and width; without any, from the arithmetic and the speed of a matrix product.
"""

import itertools
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Self

import numpy as np
import psutil

from worldrep.data.rows import RowMaker, RowSet
from worldrep.data.sets import Schedule, maker_of, replayed_rows, suite_sets, training_sets
from worldrep.data.tasks import TASKS
from worldrep.data.tokens import PAD, VOCABULARY_SIZE, row_length
from worldrep.disk import cache_folders, writable_cache
from worldrep.errors import InputError, StateError
from worldrep.settings import TRAINING_STAGES, Settings, from_params
from worldrep.text import duration_in_words, size_in_words
from worldrep.tracking import Store, StoredRun
from worldrep.training.processes import cores, visible_gpus

SPEED = "train/tokens_per_second"
LONGEST = 24 * 3600  # seconds that need no confirmation
MOST_RUNS = 50  # of each stage, from which the time is estimated
SAMPLE_ROWS = 256
FORWARD_SHARE = 1 / 3  # of a training step's arithmetic
ANSWER_TOKENS = 6  # rough number of tokens generated for a question
FLOPS = {False: 1e12, True: 1e14}  # a second, hardly ever exceeded without and with a GPU
PRODUCT = 1024, 512, 2048  # sizes of the matrix product whose speed is measured
REPEATS = 5
USED_SHARE = 0.6  # of that speed, in a training on a CPU
STEP_SECONDS = 5e-4  # at least, for any training step
ROW_BYTES = 300  # of a question with its answer and score as text
STAGES = {"train": TRAINING_STAGES, "evaluate": ("evaluate",), "extract": ("extract",)}


@dataclass(frozen=True)
class Work:
    """A training, an evaluation or an extraction that is to be done.

    begun: it has a run; checkpoints: how many are evaluated or extracted.
    """

    kind: str
    settings: Settings
    begun: bool = False
    checkpoints: int = 1

    @property
    def title(self) -> str:
        stage = self.settings.training_stage if self.kind == "train" else self.kind
        return self.settings.run_name(stage)

    @property
    def cost(self) -> float:
        """Rows times the weights in the decoder's layers."""
        size, settings = layer_weights(self.settings), self.settings
        if self.kind == "train":
            return float(settings.epochs * _n_rows(settings) * size) * _replays(settings)
        if self.kind == "evaluate":
            questions = sum(rowset.rows for rowset in suite_sets(settings).values())
            rows = questions * (1 + ANSWER_TOKENS / 10)
        else:  # the user's own cities, which are perhaps not here, count as those of the scale
            rows = settings.n_cities + settings.n_atlantis
        return self.checkpoints * rows * FORWARD_SHARE * size

    @property
    def memory(self) -> int:
        """Bytes that are certainly needed: weights and their moments, activations, rows."""
        settings, length = self.settings, _longest_row(self.settings.id_digits)
        if self.kind != "train":
            rows = sum(rowset.rows for rowset in suite_sets(settings).values())
            kept = rows * ROW_BYTES if self.kind == "evaluate" else 0
            return 4 * weights(settings) + kept
        batch = -(-settings.batch_size // settings.accumulation)
        per_token = settings.n_layers * (16 * settings.hidden_size + 3 * settings.intermediate_size)
        activations = 4 * batch * length // 2 * (per_token + 3 * VOCABULARY_SIZE)  # half is padding
        return 16 * weights(settings) + activations + length * _n_rows(settings)

    @property
    def seconds_at_least(self) -> float:
        """A lower bound of the time, from the arithmetic alone."""
        return self._seconds(FLOPS[visible_gpus() > 0])

    @property
    def seconds_here(self) -> float:
        """The time that this machine probably needs, alone. On a GPU it is the lower bound."""
        return self._seconds(FLOPS[True] if visible_gpus() else USED_SHARE * _measured_flops())

    def _seconds(self, flops: float) -> float:
        length, steps = _longest_row(self.settings.id_digits) / 2, 0
        if self.kind == "train":
            steps = Schedule.of(self.settings, _n_rows(self.settings)).steps
        return max(6 * length * self.cost / flops, steps * STEP_SECONDS)


@lru_cache(maxsize=1)
def _measured_flops() -> float:
    """Return the speed of a float32 matrix product, in operations a second, on all cores."""
    rows, inner, columns = PRODUCT
    left, right = np.ones((rows, inner), np.float32), np.ones((inner, columns), np.float32)
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - began)
    return 2 * rows * inner * columns / min(seconds)


def layer_weights(settings: Settings) -> int:
    """Return the number of weights in the matrices of the decoder's layers."""
    hidden = settings.hidden_size
    return settings.n_layers * hidden * (4 * hidden + 3 * settings.intermediate_size)


def weights(settings: Settings) -> int:
    """Return the number of weights of a model, biases and norms apart."""
    return layer_weights(settings) + 2 * VOCABULARY_SIZE * settings.hidden_size


def _replays(settings: Settings) -> float:
    """Return the rows that a training reads, replayed ones included, over those of its epochs."""
    return settings.batch_size / (settings.batch_size - replayed_rows(settings))


def _n_rows(settings: Settings) -> int:
    return sum(rowset.rows for rowset in training_sets(settings, maker_of(settings).world))


def _longest_row(id_digits: int) -> int:
    ids = np.empty((0, len("c_") + id_digits), dtype=np.uint8)
    return max(row_length(task, max(task.sizes), ids) for task in TASKS.values())


def check_needs(
    store: Store, works: Sequence[Work], *, workers: int = 1, confirmed: bool = True
) -> None:
    """Compare work with this machine. confirmed: it may take longer than LONGEST.

    Raises InputError for work that needs more memory than there is, or a confirmation; StateError
    if a disk has too little space.
    """
    for work in dict.fromkeys(works):
        has = _machine_memory()
        if work.memory > has:
            raise InputError(
                f"{work.title} needs at least {size_in_words(work.memory)} of memory, and this "
                f"machine has {size_in_words(has)}: take smaller sizes, batches or row sets"
            )
    _check_disks(store, [w for w in dict.fromkeys(works) if w.kind == "train" and not w.begun])
    if not confirmed:
        _check_time(store, works, workers)


def _check_time(store: Store, works: Sequence[Work], workers: int) -> None:
    least = sum(work.seconds_at_least for work in works) / workers
    stages = {(stage, w.settings.scale) for w in works for stage in STAGES[w.kind]}
    found = [store.recent(MOST_RUNS, stage=stage, scale=scale) for stage, scale in stages]
    speed = Speed.of(itertools.chain(*found))
    times, basis = speed.times(works, workers)
    seconds = max(least, sum(times) / workers)
    if seconds > LONGEST:
        raise InputError(
            f"this takes about {duration_in_words(seconds)} (from {basis}), and more than "
            f"{LONGEST // 3600} hours are to be confirmed: add --yes (with mlflow run: -P yes=true)"
        )


def _check_disks(store: Store, trainings: Sequence[Work]) -> None:
    """Add what trainings write to the cache and to a local store, by disk."""
    rows: dict[str, int] = {}
    for work in trainings:
        maker = maker_of(work.settings)
        for rowset in training_sets(work.settings, maker.world):
            rows[maker.digest(rowset)] = rowset.rows * _longest_row(work.settings.id_digits)
    cached = {path.stem.partition(".")[0] for f in cache_folders() for path in f.glob("*.npy")}
    new_rows = sum(size for name, size in rows.items() if name not in cached)
    # Weights of each checkpoint and of the final model, two moments of the newest checkpoints.
    kept = sum(4 * (w.settings.n_checkpoints + 5) * weights(w.settings) for w in trainings)
    needs: dict[int, list[tuple[Path, int]]] = defaultdict(list)
    cache = writable_cache() if new_rows else None
    for folder, size in ((cache, new_rows), (store.artifact_folder, kept)):
        if folder and size:
            there = next(path for path in (folder, *folder.parents) if path.exists())
            needs[there.stat().st_dev].append((there, size))
    for found in needs.values():
        size, free = sum(size for _, size in found), shutil.disk_usage(found[0][0]).free
        if size > free:
            places = " and ".join(str(path) for path, _ in found)
            raise StateError(
                f"about {size_in_words(size)} are to be written to {places}, and "
                f"{size_in_words(free)} are free: make space, or take fewer checkpoints or "
                "smaller sizes"
            )


@lru_cache(maxsize=1)
def _machine_memory() -> int:
    """Return the bytes of memory: of the GPU that torch uses, else of the machine or its cgroup."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return int(sys.modules["torch"].cuda.mem_get_info()[1])
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="utf-8").strip() if limit.exists() else ""
    total = int(psutil.virtual_memory().total)
    return min(total, int(text)) if text.isdecimal() else total


@dataclass(frozen=True)
class Speed:
    """How fast finished runs of one scale were: cost per second by kind and width."""

    typical: Mapping[tuple[str, str], float]
    n: int

    @classmethod
    def of(cls, runs: Iterable[StoredRun]) -> Self:
        found = defaultdict(list)
        for run in runs:
            if run.status == "FINISHED":
                for kind, rate in _rates_of(run):
                    found[kind, run.tag("width")].append(rate)
        typical = {key: median(values) for key, values in found.items()}
        return cls(typical, sum(map(len, found.values())))

    def seconds(self, work: Work) -> float | None:
        """Return how long work takes; None if no run like it is finished."""
        rate = self.typical.get((work.kind, work.settings.width))
        if not rate:
            return None
        if work.kind == "train":
            return training_tokens(work.settings) * layer_weights(work.settings) / rate
        return work.cost / rate

    def times(self, works: Sequence[Work], workers: int = 1) -> tuple[list[float], str]:
        """Return how long each work takes a worker, and what that is estimated from.

        Workers on a CPU share the speed of the machine; those beyond its cores are on others.
        """
        share = 1 if visible_gpus() else min(workers, cores())
        known = [self.seconds(work) for work in works]
        unknown = known.count(None)
        arithmetic = "the arithmetic" if visible_gpus() else "the speed of a matrix product"
        runs = f"{self.n} finished run{'' if self.n == 1 else 's'}"
        basis = f"{runs}, and {arithmetic} for {unknown} steps" if unknown else runs
        basis = arithmetic if unknown == len(works) else basis
        times = zip(works, known, strict=True)
        return [share * work.seconds_here if t is None else t for work, t in times], basis


def _rates_of(run: StoredRun) -> Iterator[tuple[str, float]]:
    """Yield the kind of a finished run and its cost per second; nothing if that is not known."""
    kind = next((kind for kind, stages in STAGES.items() if run.stage in stages), "")
    never_resumed = not (run.claim and run.claim.number)
    try:
        settings = from_params(run.params)
        if kind == "train" and SPEED in run.metrics:
            yield kind, run.metrics[SPEED] * layer_weights(settings)
        elif kind != "train" and run.tag("checkpoints") == "last" and never_resumed:
            yield kind, Work(kind, settings).cost / max(run.ended - run.started, 0.001)
    except InputError:  # settings of another version, or cities that are not here
        return


def training_tokens(settings: Settings, maker: RowMaker | None = None) -> int:
    """Return the real tokens that a training reads in all epochs; about 1% off.

    Replayed rows count as rows of the training's own. maker: of the training's world, by default
    that of its settings.
    """
    maker = maker or maker_of(settings)
    sets = training_sets(settings, maker.world)
    read = sum(rows.rows * _tokens_per_row(maker, rows.task, rows.pool) for rows in sets)
    return round(read * settings.epochs * _replays(settings))


@lru_cache(maxsize=256)
def _tokens_per_row(maker: RowMaker, task: str, pool: str) -> float:
    rows = min(SAMPLE_ROWS, maker.held_out_rows["val"])
    sample = maker.tokens(RowSet(task, pool, "val", rows))
    return float((sample != PAD).sum() / len(sample))
