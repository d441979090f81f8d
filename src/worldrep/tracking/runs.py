"""Runs as the store returns them, and what a new one is opened with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Self

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import (
    LifecycleStage,
    Run,
)
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

from worldrep.errors import InputError
from worldrep.settings import check_value, parse_value
from worldrep.text import line, without_passwords
from worldrep.tracking.liveness import Claim

TAG = "worldrep."  # prefix of the tags
ERROR = f"{TAG}error"  # tag: why a run failed
SETTINGS = "settings.json"  # artifact
CITIES = "cities.csv"  # artifact: of a training its world, of a study the user's CSV
DELETED = "DELETED"  # status of a run that was deleted and can be restored
LONGEST_NAME = 250  # characters of a run's name
LATEST = 4_102_444_800.0  # 2100 in seconds since 1970; pandas has no dates of any year


@dataclass(frozen=True)
class StoredRun:
    """A run as it was when it was read. Tags have their prefix; times are in seconds since 1970.

    Texts are plain lines: others may have written them.
    """

    id: str
    name: str
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    claim: Claim | None
    started: float
    ended: float
    params: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Self:
        info, data = run.info, run.data
        status = info.status if info.lifecycle_stage == LifecycleStage.ACTIVE else DELETED
        claim = Claim.newest(data.tags, data.params)
        stamps = info.start_time or 0, info.end_time or 0
        started, ended = (min(max(stamp / 1000, 0.0), LATEST) for stamp in stamps)
        tags, params = ({k: line(v) for k, v in own.items()} for own in (data.tags, data.params))
        known = info.run_id, line(info.run_name or "", LONGEST_NAME), status, tags, data.metrics
        return cls(*known, claim, started, ended, params)

    def tag(self, name: str) -> str:
        """Return a tag by its name without prefix, empty if the run lacks it."""
        return self.tags.get(TAG + name, "")

    @property
    def stage(self) -> str:
        """The kind of work, such as `pretrain`; empty for a run of another program."""
        return self.tag("stage")

    @property
    def fingerprint(self) -> str:
        return self.tag("fingerprint")

    @property
    def configuration(self) -> str:
        """The fingerprint without the seed, equal for runs that differ in their seed alone."""
        return self.tag("configuration")

    def setting(self, name: str) -> Any:
        """Return a setting that the run logged as a param; None if it has none or a wrong value."""
        return _parsed(name, self.params.get(f"cfg.{name}"))

    @property
    def seed(self) -> int | None:
        """The seed of the run's model; None if it has none or several."""
        return _parsed("seed", self.tag("seed"))

    @property
    def model_id(self) -> str:
        """The LoggedModel that the run made or measured; empty for a run of an earlier version."""
        return self.tag("model_id")

    @property
    def parent(self) -> str | None:
        return self.tags.get(MLFLOW_PARENT_RUN_ID)

    @property
    def alive(self) -> bool:
        return self.claim is not None and self.claim.alive


@dataclass(frozen=True)
class RunSpec:
    """A piece of work: the name of its run, and what identifies its result.

    tags: without prefix; settings: logged as params `cfg.*` and as settings.json; repeatable: a
    finished run may be opened again, as that of a study; makes: name of the LoggedModel that the
    work makes, if it makes one.
    """

    stage: str
    name: str
    fingerprint: str
    tags: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    repeatable: bool = False
    makes: str = ""

    @property
    def all_tags(self) -> dict[str, str]:
        """Tags as MLflow stores them, without the parent: a run keeps its first parent."""
        named = {"stage": self.stage, "fingerprint": self.fingerprint, **self.tags}
        prefixed = {TAG + key: without_passwords(str(value)) for key, value in named.items()}
        return prefixed | {MLFLOW_RUN_NAME: self.name}

    @property
    def model_facts(self) -> dict[str, Any]:
        """What its LoggedModel is created with: tags and params of the run."""
        tags = {key: value for key, value in self.all_tags.items() if key.startswith(TAG)}
        params = {f"cfg.{key}": str(value) for key, value in self.settings.items()}
        return {"name": self.makes, "model_type": self.stage, "params": params, "tags": tags}


def _parsed(name: str, text: str | None) -> Any:
    """Return the value of a setting; None if the text, which others may have written, is none."""
    try:
        value = None if text is None else parse_value(name, text)
        if value is not None:
            check_value(name, value)
    except InputError:
        return None
    return value


def listed(values: Iterable[object]) -> str:
    """Return the values of a tag, joined by commas; only as many whole ones as MLflow stores."""
    names = [*map(str, values)]
    ends = accumulate(len(name) + 1 for name in names)
    room = MAX_TAG_VAL_LENGTH - len(f"and {len(names)} more")
    fitting = sum(end <= room for end in ends)
    more = [f"and {len(names) - fitting} more"] if fitting < len(names) else []
    return ",".join(names[:fitting] + more)


@dataclass(frozen=True)
class Dataset:
    """A data set that a run used, with the description from which it can be made again."""

    name: str
    digest: str
    source: Mapping[str, Any]

    def entity(self) -> MlflowDataset:
        source = CodeDatasetSource(dict(self.source))
        return MetaDataset(source, name=self.name, digest=self.digest)._to_mlflow_entity()
