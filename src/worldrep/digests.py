"""Digests of values, and random streams that are the same on every machine."""

import hashlib
import json
from typing import Any

import numpy as np


def digest(value: Any) -> str:
    """Return 32 hex digits (truncated SHA-256) of a JSON-serialisable value; keys are sorted."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def random_stream(seed: int, *labels: object) -> np.random.Generator:
    """Return a random generator that depends on the seed and the labels alone."""
    entropy = hashlib.sha256("/".join(map(str, labels)).encode()).digest()
    words = np.frombuffer(entropy, dtype="<u4").tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))
