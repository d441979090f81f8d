"""Sharing a study out among drivers that do not talk to one another."""

from __future__ import annotations

from dataclasses import dataclass

from worldrep.errors import InputError
from worldrep.settings import Settings
from worldrep.studies.graph import Graph


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/7` -> the second of seven. Raises InputError for anything else."""
        index, slash, count = text.partition("/")
        numbers = [part.strip() for part in (index, count)]
        if not slash or not all(part.isascii() and part.isdecimal() for part in numbers):
            raise InputError(f"shard={text!r} is not of the form 2/7, the second of seven")
        shard = cls(*map(int, numbers))
        if not 1 <= shard.index <= shard.count:
            raise InputError(f"shard={text!r}: the first number must be from 1 to the second")
        return shard

    def steps_of(self, graph: Graph) -> set[str]:
        """Fingerprints of the steps that this part is answerable for.

        Every model with all of its steps belongs to one part. The costliest is dealt out first,
        each to the part with the least so far; the store plays no role, so that all parts agree
        whenever they begin.
        """
        models = graph.by_model()
        cost = {
            settings: sum(step.cost for step in steps.values())
            for settings, steps in models.items()
        }
        loads = [0.0] * self.count
        owner: dict[Settings, int] = {}
        for settings in sorted(models, key=lambda settings: -cost[settings]):
            part = loads.index(min(loads))
            owner[settings] = part
            loads[part] += cost[settings]
        return {
            step.fingerprint
            for settings, steps in models.items()
            if owner[settings] == self.index - 1
            for step in steps.values()
        }
