"""Durations in words."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """A rough duration, such as `about 4 minutes`."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {max(1, round(seconds))} seconds"
