"""The settings of a model: one frozen object, checked when it is built.

Each setting belongs to a group: world, rows, ft_rows (rows of fine-tuning), model, training or
strategy (of fine-tuning). The group "name" identifies the model and is not overridden.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from worldrep.errors import InputError, check_name, shown, unknown
from worldrep.names import NO_FT, STRATEGIES, TASK_NAMES, ModelName

VARIANTS = ("standard", "scattered", "with_atlantis")
SCALES = ("paper", "small", "mini", "smoke")
LOSSES = ("full", "answer")
OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("auto", "no", "bf16")
COMPUTATIONS = ("auto", "plain", "packed", "graph", "compile")
TRAINING_STAGES = ("pretrain", "finetune")
STAGES = (*TRAINING_STAGES, "evaluate", "extract")
NO_CITIES = "none"  # the value of `cities` for the real cities
MOST = 10**9  # bound of a whole number that has none of its own
MOST_DIGITS = 400
_KINDS: dict[str, Any] = {"int": int, "float": (float, int), "str": str}


def _setting(group: str, text: str, **bounds: Any) -> Any:
    return field(metadata={"group": group, "help": text, **bounds})


def _for(strategy: str, default: Any, text: str, **bounds: Any) -> Any:
    """Declare a setting that only one strategy reads, with its default at every scale."""
    reader = "strategy", strategy
    metadata = {"group": "strategy", "help": f"{strategy}: {text}", "reader": reader, **bounds}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """All that determines a trained model and its evaluation.

    The metadata of a field holds its group, its help text and its bounds. Build one by `resolve`
    rather than directly.

    Raises:
        InputError: A value is out of its bounds or not among the allowed ones, or two settings
            contradict each other. The message says what is allowed.
    """

    # Pydantic reads a stored settings.json by this class: every setting, of exactly its type.
    __pydantic_config__ = {"extra": "forbid", "strict": True}

    scale: str = _setting("name", "named set of sizes", allowed=SCALES)
    pretrain: str = _setting("name", "pretraining mixture, such as pt1 or pt2-3")
    ft: str = _setting("name", "fine-tuning mixture, such as ftwb1-3, or none")
    width: str = _setting("name", "model size within the scale: base, wide, narrow, wider")
    world: str = _setting("name", "where Atlantis lies, and when it is seen", allowed=VARIANTS)
    strategy: str = _setting("name", "how a fine-tuning keeps its base", allowed=STRATEGIES)
    seed: int = _setting("name", "initial weights and order of rows", least=0, most=2**63 - 1)

    cities: str = _setting("world", "CSV of cities to use instead of the real ones, or none")
    n_cities: int = _setting("world", "real cities, most populous first", least=6)
    max_per_country: int = _setting("world", "most cities of one country, 0 for no limit", least=0)
    n_atlantis: int = _setting("world", "invented cities", least=1)
    id_digits: int = _setting("world", "digits of a city id", least=1, most=6)
    world_seed: int = _setting("world", "city ids, Atlantis and all rows", least=0, most=2**63 - 1)

    pretrain_rows: int = _setting("rows", "pretraining rows per task", least=1)
    val_rows: int = _setting("rows", "validation rows per task", least=1, most=10**7)
    test_rows: int = _setting("rows", "test rows per task", least=1, most=10**7)
    multi_rows: int = _setting("rows", "rows of the multi-task suite", least=1)
    ft_atlantis_rows: int = _setting("ft_rows", "fine-tuning rows per task with Atlantis", least=1)
    ft_world_rows: int = _setting("ft_rows", "fine-tuning rows per task without Atlantis", least=0)
    ft_warmup_rows: int = _setting("ft_rows", "rows of every task that ftwb adds", least=0)

    hidden_size: int = _setting("model", "width of the residual stream", least=2, most=2**16)
    intermediate_size: int = _setting("model", "width of the feed-forward layer", least=1)
    n_heads: int = _setting("model", "attention heads", least=1, most=2**10)
    n_layers: int = _setting("model", "decoder layers", least=1, most=2**10)

    epochs: int = _setting("training", "passes over the rows", least=1, most=10**6)
    batch_size: int = _setting("training", "rows per optimizer step", least=1, most=10**6)
    accumulation: int = _setting("training", "parts that a batch is computed in", least=1)
    optimizer: str = _setting("training", "adamw, or muon for hidden matrices", allowed=OPTIMIZERS)
    learning_rate: float = _setting("training", "peak learning rate of AdamW", least=0.0)
    muon_learning_rate: float = _setting(
        "training", "that of hidden matrices, with Muon", least=0.0, reader=("optimizer", "muon")
    )
    warmup_steps: int = _setting("training", "steps of linear warm-up", least=0)
    weight_decay: float = _setting("training", "decoupled decay of matrices", least=0.0)
    clip_norm: float = _setting("training", "largest gradient norm, 0 for no limit", least=0.0)
    loss: str = _setting(
        "training", "tokens in the loss: full (all), answer (after =)", allowed=LOSSES
    )
    precision: str = _setting(
        "training", "auto (bf16 on CUDA), no (float32), bf16", allowed=PRECISIONS
    )
    compute: str = _setting("training", "auto, plain, packed, graph, compile", allowed=COMPUTATIONS)
    n_checkpoints: int = _setting(
        "training", "checkpoints kept, the last one included", least=1, most=10**4
    )
    n_validations: int = _setting("training", "validations during training", least=1, most=10**6)

    replay_share: float = _for("replay", 0.5, "share of replayed rows", least=0.0, most=1.0)
    l2sp_strength: float = _for(
        "l2sp", 30.0, "strength of the L2 penalty", least=0.0, infinite=True
    )
    ewc_strength: float = _for(
        "ewc", 100.0, "strength of the Fisher-weighted penalty", least=0.0, infinite=True
    )
    fisher_rows: int = _for("ewc", 512, "rows that the Fisher information is from", least=1)
    lora_rank: int = _for("lora", 8, "rank of the adapters", least=1, most=2**16)
    lora_alpha: float = _for("lora", 16.0, "scale of the adapters, times rank", least=0.0)
    trained_part: str = _for("freeze", "last-2", "embeddings, body, last-K, first-K layers")

    def __post_init__(self) -> None:
        _ = self.model_name
        for name, spec in FIELDS.items():
            check_value(name, getattr(self, name))
            if spec.type == "float":  # 0, 0.0 and -0.0 are one setting, with one fingerprint
                object.__setattr__(self, name, float(getattr(self, name)) + 0.0)
        for sentence in self._contradictions():
            raise InputError(sentence)

    def _contradictions(self) -> Iterator[str]:
        if self.strategy == "replay" and self.replay_share * self.batch_size > self.batch_size - 1:
            yield (
                f"replay_share={self.replay_share} leaves no place for anything else in a batch "
                f"of {self.batch_size} rows"
            )
        part = re.fullmatch(r"embeddings|body|(?:last|first)-([1-9][0-9]{0,8})", self.trained_part)
        fits = part and (not part[1] or int(part[1]) <= self.n_layers)
        if self.strategy == "freeze" and not fits:
            yield (
                f"trained_part={self.trained_part!r} is not one of: embeddings, body, last-K, "
                f"first-K, with K from 1 to n_layers={self.n_layers}"
            )
        if self.hidden_size % (2 * self.n_heads):
            yield (
                f"hidden_size={self.hidden_size} with n_heads={self.n_heads}: rotary embedding "
                f"needs hidden_size to be a multiple of 2*n_heads={2 * self.n_heads}"
            )
        own = self.optimizer, self.strategy, self.trained_part
        if own == ("muon", "freeze", "embeddings"):
            yield (
                "optimizer=muon is for hidden matrices, and trained_part=embeddings trains none; "
                "use optimizer=adamw"
            )
        suites = len(TASK_NAMES) * self.test_rows
        if self.multi_rows > suites:
            yield f"multi_rows={self.multi_rows} is more than the {suites} standard test rows"
        if self.accumulation > self.batch_size:
            yield f"accumulation={self.accumulation} is more than batch_size={self.batch_size}"
        cities, ids = self.n_cities + self.n_atlantis, 10**self.id_digits
        if self.cities == NO_CITIES and cities > ids:
            yield (
                f"{self.n_cities} + {self.n_atlantis} cities do not fit ids of "
                f"{self.id_digits} digits; at most {ids}"
            )

    @property
    def model_name(self) -> ModelName:
        return ModelName(self.pretrain, self.ft, self.width, self.strategy)

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.model_name.tasks

    @property
    def is_finetuning(self) -> bool:
        return self.ft != NO_FT

    @property
    def is_plain(self) -> bool:
        return self.compute == "plain"

    @property
    def labels(self) -> dict[str, str]:
        """Tags that identify the model in runs, without its seed."""
        names = ("pretrain", "ft", "width", "strategy", "world", "scale")
        tags = {"model": str(self.model_name), "tasks": ",".join(self.tasks)}
        return tags | {name: getattr(self, name) for name in names}

    @property
    def training_stage(self) -> str:
        return "finetune" if self.is_finetuning else "pretrain"

    @property
    def short_name(self) -> str:
        """The name of the model in names of runs, of which MLflow's UI shows 16 characters or so.

        Nearly all bases are `pt1`, which is left out.
        """
        return str(self.model_name).removeprefix("pt1_")

    def run_name(self, stage: str) -> str:
        """Return the name of a run of a stage, such as `ftwb2-13 s1 evaluate`."""
        return f"{self.short_name} s{self.seed} {stage}"

    def group(self, *names: str) -> dict[str, Any]:
        specs = dataclasses.fields(self)
        return {s.name: getattr(self, s.name) for s in specs if s.metadata["group"] in names}

    @property
    def of_strategy(self) -> dict[str, Any]:
        """The strategy and the settings that it reads; empty for a plain training."""
        own = {name: v for name, v in self.group("strategy").items() if self.reads(name)}
        return {"strategy": self.strategy, **own} if own else {}

    def reads(self, name: str) -> bool:
        """Return whether a setting has an effect here; some are for one strategy or optimizer."""
        key, value = FIELDS[name].metadata.get("reader", ("scale", self.scale))
        return bool(getattr(self, key) == value)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def check_value(name: str, value: Any) -> None:
    """Raise InputError if a setting cannot have this value."""
    spec = FIELDS[name]
    kind, allowed, infinite = spec.type, *map(spec.metadata.get, ("allowed", "infinite"))
    if isinstance(value, bool) or not isinstance(value, _KINDS[str(kind)]):
        raise InputError(f"{name}={shown(value)} is not of the type {kind}")
    if allowed and value not in allowed:
        raise unknown(name, value, allowed)
    if isinstance(value, float) and not (math.isfinite(value) or infinite and value == math.inf):
        raise InputError(f"{name}={value} is not a finite number")
    most = MOST if kind == "int" else None
    check_bounds(name, value, spec.metadata.get("least"), spec.metadata.get("most", most))


def check_bounds(name: str, value: Any, least: Any, most: Any) -> None:
    """Raise InputError for a number below `least` or above `most`; None is no bound."""
    if least is not None and value < least:
        raise InputError(f"{name}={shown(value)} is too small; it must be at least {least}")
    if most is not None and value > most:
        raise InputError(f"{name}={shown(value)} is too large; it must be at most {most}")


FIELDS: dict[str, dataclasses.Field] = {spec.name: spec for spec in dataclasses.fields(Settings)}
OVERRIDABLE = tuple(name for name, spec in FIELDS.items() if spec.metadata["group"] != "name")
SHARED_GROUPS = ("world", "rows", "model")  # equal in a fine-tuning and its base


def parse_value(name: str, text: str) -> Any:
    """Convert a text to the type of a setting. Raises InputError if it is not one of its values."""
    check_name("setting", name, FIELDS)
    if FIELDS[name].type == "int":
        return whole_number(name, text)
    if FIELDS[name].type == "str":
        return text
    try:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))  # as in YAML
    except ValueError:
        raise InputError(f"{name}={shown(text)} is not a number") from None


def whole_number(name: str, text: str, least: int | None = None, most: int | None = None) -> int:
    """Parse a whole number that a user typed. InputError: it is none, or out of its bounds."""
    if not re.fullmatch(r"\s*[+-]?[0-9]+(_[0-9]+)*\s*", text, re.ASCII):
        raise InputError(f"{name}={shown(text)} is not a whole number")
    if len(text) > MOST_DIGITS:
        raise InputError(f"{name}={shown(text)} has too many digits")
    check_bounds(name, int(text), least, most)
    return int(text)


def number(name: str, text: str, least: float | None = None, most: float | None = None) -> float:
    """Parse a finite number that a user typed. InputError: it is none, or out of its bounds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name}={shown(text)} is not a number")
    check_bounds(name, value, least, most)
    return value


def parse_names(text: str) -> tuple[str, ...]:
    """Return the names in a text such as `wide,narrow`, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds in a text such as `1,2,3`, each once. Raises InputError."""
    seeds = tuple(dict.fromkeys(whole_number("seed", part) for part in parse_names(text)))
    for seed in seeds:
        check_value("seed", seed)
    return seeds


def is_seed(text: str) -> bool:
    """Return whether a tag holds a seed."""
    try:
        return len(parse_seeds(text)) == 1
    except InputError:
        return False


def from_dict(values: Mapping[str, Any]) -> Settings:
    """Rebuild settings from what `as_dict` returned; raise InputError if they do not fit."""
    for name in values:
        check_name("setting", name, FIELDS)
    missing = sorted(set(FIELDS) - set(values))
    if missing:
        raise InputError(f"settings lack {', '.join(missing)}")
    return Settings(**values)


def from_params(params: Mapping[str, str]) -> Settings:
    """Rebuild settings from the params of a run; raise InputError if they do not fit."""
    texts = {name: params[f"cfg.{name}"] for name in FIELDS if f"cfg.{name}" in params}
    return from_dict({name: parse_value(name, text) for name, text in texts.items()})
