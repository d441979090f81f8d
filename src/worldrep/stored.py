"""Read files of a store, which others may have written, by schemas with bounds.

`Settings` is the schema of settings.json.
"""

import csv
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from worldrep.errors import StateError
from worldrep.text import line

MOST_BYTES = 2**24  # of a JSON or CSV file, and of the header of a safetensors file
CONFIG, WEIGHTS = "config.json", "model.safetensors"  # files of a model
LONGEST = 300  # characters of a fault

T = TypeVar("T")
TensorFacts = tuple[str, tuple[int, ...]]  # type such as F32, shape
Size = Annotated[int, Field(ge=1, le=2**20)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
CityId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,6}$")]


class DamagedError(StateError):
    """A file of a store is not what it should be: `fault` says why, without the file's name."""

    def __init__(self, path: Path, fault: str) -> None:
        self.name, self.fault = path.name, line(fault, LONGEST)
        super().__init__(f"{path} is damaged: {self.fault}")


class FileFacts(BaseModel):
    """What a manifest says of a file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    bytes: Annotated[int, Field(ge=0, le=2**40)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


Manifest = Annotated[dict[FileName, FileFacts], Field(min_length=1, max_length=100)]


class ModelConfig(BaseModel):
    """The sizes in config.json; `load_model` compares the rest that a forward pass depends on."""

    model_config = ConfigDict(extra="allow", strict=True)

    model_type: Literal["qwen2"]
    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_attention_heads: Size
    num_key_value_heads: Size
    num_hidden_layers: Annotated[int, Field(ge=1, le=2**10)]
    max_position_embeddings: Size


class RepresentationsManifest(BaseModel):
    """What tables of representations hold. Earlier versions did not write their digest."""

    model_config = ConfigDict(extra="ignore", strict=True)

    city_ids: list[CityId]  # in the order of rows
    layers: list[Annotated[int, Field(ge=0, le=2**10)]] | None = None
    task: str | None = None
    positions: list[str] | None = None
    step: int | None = None
    model: str | None = None
    model_run_id: str | None = None
    world_digest: str | None = None
    sha256: str | None = None


class StoredCity(BaseModel):
    """A line of cities.csv, whose values are text."""

    model_config = ConfigDict(extra="forbid")

    city_id: CityId
    name: Annotated[str, StringConstraints(min_length=1)]
    x: Annotated[int, Field(ge=-1800, le=1800)]
    y: Annotated[int, Field(ge=-900, le=900)]
    region: Annotated[str, StringConstraints(min_length=1)]


@cache
def _adapter(schema: Any) -> TypeAdapter:
    return TypeAdapter(schema)


def read_json(path: Path, schema: type[T]) -> T:
    """Return what a JSON file holds, by a schema. DamagedError if it does not fit."""
    text = _read(path)
    try:
        return _adapter(schema).validate_json(text)  # type: ignore[arg-type]
    except ValidationError as fault:
        raise _damaged(path, fault) from None


def read_csv(path: Path, schema: type[T]) -> list[T]:
    """Return the lines of a CSV file, by the schema of one. DamagedError if one does not fit."""
    text = _read(path)
    try:
        lines = list(csv.DictReader(io.StringIO(text.decode(), newline=""), strict=True))
        return _adapter(list[schema]).validate_python(lines)  # type: ignore[valid-type]
    except ValidationError as fault:
        raise _damaged(path, fault) from None
    except (csv.Error, UnicodeDecodeError) as fault:
        raise DamagedError(path, str(fault)) from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise DamagedError(path, "it is missing") from None
    if len(text) > MOST_BYTES:
        raise DamagedError(path, f"it has more than {MOST_BYTES} bytes")
    return text


def _damaged(path: Path, fault: ValidationError) -> DamagedError:
    first = fault.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return DamagedError(path, f"{place}: {first['msg']}" if place else first["msg"])


def tensor_facts(path: Path) -> dict[str, TensorFacts]:
    """Return type and shape of the tensors of a safetensors file, of which the header is read.

    Raises DamagedError for a file that is not as long as its header says.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MOST_BYTES:
            raise DamagedError(path, f"it has a header of more than {MOST_BYTES} bytes")
        with safe_open(path, "numpy") as tensors:
            parts = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            return {k: (part.get_dtype(), tuple(part.get_shape())) for k, part in parts.items()}
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise DamagedError(path, "it is missing") from None
    except SafetensorError as fault:
        raise DamagedError(path, str(fault)) from None


def check_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise DamagedError unless a safetensors file holds exactly these float32 tensors."""
    found = tensor_facts(path)
    for name in sorted(found.keys() ^ shapes.keys()):
        how = "it lacks" if name in shapes else "it has an unknown tensor"
        raise DamagedError(path, f"{how} {name!r}")
    for name, shape in shapes.items():
        if found[name] != ("F32", shape):
            raise DamagedError(path, f"{name} is {found[name]} instead of {('F32', shape)}")
