"""Representations as files: the tables of some layers, and a manifest that says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

TENSORS, MANIFEST = "representations.safetensors", "manifest.json"

Tables = dict[int, NDArray[np.float32]]  # layer -> (n_cities, positions * hidden size)


def save_representations(folder: Path, tables: Tables, manifest: Mapping[str, Any]) -> None:
    """Write the tables as safetensors under `layer_N`, with a manifest beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"layer_{layer}": table for layer, table in tables.items()}, folder / TENSORS)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def load_representations(folder: Path) -> tuple[Tables, dict[str, Any]]:
    """What `save_representations` wrote: tables by layer, and the manifest."""
    tables = load_file(folder / TENSORS)
    named = {int(name.removeprefix("layer_")): table for name, table in tables.items()}
    return named, json.loads((folder / MANIFEST).read_text())
