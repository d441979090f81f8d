"""What work needs in memory, disk and time, compared with this machine before anything starts.

Memory and disk are computed from the settings. The time is told by finished runs of the same scale
and width; without any, a lower bound is computed from the arithmetic.
"""

import itertools
import shutil
import sys
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
from worldrep.data.sets import maker_of, suite_sets, training_sets
from worldrep.data.tasks import TASKS
from worldrep.data.tokens import PAD, VOCABULARY_SIZE, row_length
from worldrep.disk import cache_folder
from worldrep.errors import InputError, StateError
from worldrep.progress import duration_in_words
from worldrep.settings import Settings, from_params
from worldrep.tracking import Store, StoredRun
from worldrep.training.schedule import Schedule

SPEED = "train/tokens_per_second"
LONGEST = 24 * 3600  # seconds that need no confirmation
MOST_RUNS = 50  # of each stage that tell the time
SAMPLE_ROWS = 256
FORWARD_SHARE = 1 / 3  # of a training step's arithmetic
ANSWER_TOKENS = 6  # rough number of tokens generated for a question
FLOPS = {False: 1e12, True: 1e14}  # a second, hardly ever exceeded without and with a GPU
STEP_SECONDS = 5e-4  # no training step is quicker
ROW_BYTES = 300  # of a question with its answer and score as text
STAGES = {"train": ("pretrain", "finetune"), "evaluate": ("evaluate",), "extract": ("extract",)}


@dataclass(frozen=True)
class Work:
    """A training, an evaluation or an extraction that is to be done. begun: it has a run."""

    kind: str
    settings: Settings
    begun: bool = False

    @property
    def title(self) -> str:
        stage = self.settings.training_stage if self.kind == "train" else self.kind
        return self.settings.run_name(stage)

    @property
    def cost(self) -> float:
        """Rows times the weights in the decoder's layers."""
        size, settings = layer_weights(self.settings), self.settings
        if self.kind == "train":
            return float(settings.epochs * _n_rows(settings) * size)
        if self.kind == "evaluate":
            rows = sum(rowset.rows for rowset in suite_sets(settings).values())
            return rows * (1 + ANSWER_TOKENS / 10) * (FORWARD_SHARE * size)
        # The user's own cities, which are perhaps not here, are counted as those of the scale.
        return (settings.n_cities + settings.n_atlantis) * (FORWARD_SHARE * size)

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
        """A lower bound of the time."""
        length, steps = _longest_row(self.settings.id_digits) / 2, 0
        if self.kind == "train":
            steps = Schedule.of(self.settings, _n_rows(self.settings)).steps
        return max(6 * length * self.cost / FLOPS[_has_gpu()], steps * STEP_SECONDS)


def layer_weights(settings: Settings) -> int:
    """Return the number of weights in the matrices of the decoder's layers."""
    hidden = settings.hidden_size
    return settings.n_layers * hidden * (4 * hidden + 3 * settings.intermediate_size)


def weights(settings: Settings) -> int:
    """Return the number of weights of a model, biases and norms apart."""
    return layer_weights(settings) + 2 * VOCABULARY_SIZE * settings.hidden_size


def _n_rows(settings: Settings) -> int:
    return sum(rowset.rows for rowset in training_sets(settings, maker_of(settings).world))


def _longest_row(id_digits: int) -> int:
    ids = np.empty((0, len("c_") + id_digits), dtype=np.uint8)
    return max(row_length(task, max(task.sizes), ids) for task in TASKS.values())


def _has_gpu() -> bool:
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))


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
                f"{work.title} needs at least {_size(work.memory)} of memory, "
                f"and this machine has {_size(has)}: take smaller sizes, batches or row sets"
            )
    _check_disks(store, [w for w in dict.fromkeys(works) if w.kind == "train" and not w.begun])
    if not confirmed:
        _check_time(store, works, workers)


def _check_time(store: Store, works: Sequence[Work], workers: int) -> None:
    least = sum(work.seconds_at_least for work in works) / workers
    stages = {(stage, w.settings.scale) for w in works for stage in STAGES[w.kind]}
    found = [store.recent(MOST_RUNS, stage=stage, scale=scale) for stage, scale in stages]
    speed = Speed.of(itertools.chain(*found))
    known = [speed.seconds(work) or work.seconds_at_least for work in works]
    seconds = max(least, sum(known) / workers)
    if seconds > LONGEST:
        basis = f"told by {speed.n} finished runs" if speed.n else "or more: no run tells the time"
        raise InputError(
            f"this takes {duration_in_words(seconds)} ({basis}), and more than "
            f"{LONGEST // 3600} hours are to be confirmed: add --yes (with mlflow run: -P yes=true)"
        )


def _check_disks(store: Store, trainings: Sequence[Work]) -> None:
    """Add what trainings write to the cache and to a local store, by disk."""
    rows: dict[str, int] = {}
    for work in trainings:
        maker = maker_of(work.settings)
        for rowset in training_sets(work.settings, maker.world):
            rows[maker.digest(rowset)] = rowset.rows * _longest_row(work.settings.id_digits)
    cached = [name for name in rows if any(cache_folder().glob(f"{name}.*.npy"))]
    new_rows = sum(rows.values()) - sum(rows[name] for name in cached)
    # Weights of each checkpoint and of the final model, two moments of the newest checkpoints.
    kept = sum(4 * (w.settings.n_checkpoints + 5) * weights(w.settings) for w in trainings)
    needs: dict[int, list[tuple[Path, int]]] = defaultdict(list)
    for folder, size in ((cache_folder(), new_rows), (store.artifact_folder, kept)):
        if folder and size:
            there = next(path for path in (folder, *folder.parents) if path.exists())
            needs[there.stat().st_dev].append((there, size))
    for found in needs.values():
        size, free = sum(size for _, size in found), shutil.disk_usage(found[0][0]).free
        if size > free:
            places = " and ".join(str(path) for path, _ in found)
            raise StateError(
                f"about {_size(size)} are to be written to {places}, and {_size(free)} are free: "
                "make space, or take fewer checkpoints or smaller sizes"
            )


@lru_cache(maxsize=1)
def _machine_memory() -> int:
    """Return the bytes of memory: of the GPU that torch uses, else of the machine or its cgroup."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return int(sys.modules["torch"].cuda.mem_get_info()[1])
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else ""
    total = int(psutil.virtual_memory().total)
    return min(total, int(text)) if text.isdecimal() else total


def _size(size: float) -> str:
    if size < 1e9:
        return f"{size / 1e6:,.1f} MB"
    return f"{size / 1e9:,.1f} GB" if size < 1e14 else f"{size / 1e9:.1e} GB"


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


def _rates_of(run: StoredRun) -> Iterator[tuple[str, float]]:
    """Yield the kind of a finished run and its cost per second; nothing if it does not tell."""
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

    maker: of the training's world, by default that of its settings.
    """
    maker = maker or maker_of(settings)
    sets = training_sets(settings, maker.world)
    read = sum(rows.rows * _tokens_per_row(maker, rows.task, rows.pool) for rows in sets)
    return round(read * settings.epochs)


@lru_cache(maxsize=256)
def _tokens_per_row(maker: RowMaker, task: str, pool: str) -> float:
    rows = min(SAMPLE_ROWS, maker.held_out_rows["val"])
    sample = maker.tokens(RowSet(task, pool, "val", rows))
    return float((sample != PAD).sum() / len(sample))
