"""Rows parsed and answered once more, one by one, in plain Python: what the tests compare with."""

import re

from benchmarks.data import PLAIN_ANSWERS
from worldrep.data.tasks import TASKS

ANSWERS = {task.label: PLAIN_ANSWERS[name] for name, task in TASKS.items()}


def parse(text):
    """Label, city ids and answer of a row."""
    label, cities, answer = re.fullmatch(r"([a-z]+)\(([^()]+)\)=(\w+)", text).groups()
    return label, [city.removeprefix("c_") for city in re.split("[,;]", cities)], answer


def wrong_rows(rows, world):
    """The rows whose answer is not the plain one."""
    place = dict(zip(world.cities["city_id"], map(tuple, world.positions.tolist()), strict=True))
    wrong = []
    for text in rows:
        label, ids, answer = parse(text)
        plain = str(ANSWERS[label](*(place[city] for city in ids)))
        if answer != (plain.upper() if plain in ("True", "False") else plain):
            wrong.append(text)
    return wrong
