"""Digests: short names for everything that determines a result."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def digest(value: Any) -> str:
    """32 hex digits of a JSON-able value, the same in every process and on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def random_stream(seed: int, *labels: object) -> np.random.Generator:
    """An independent random stream for a seed and a list of labels, reproducible everywhere."""
    entropy = hashlib.sha256("/".join(map(str, labels)).encode()).digest()
    words = np.frombuffer(entropy, dtype="<u4").tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))
