"""Digests and random streams: the same everywhere, and different where their inputs differ."""

import numpy as np

from worldrep.digests import digest, random_stream


def test_a_digest_is_32_hex_digits_that_never_change():
    assert digest({"a": 1, "b": [1.5, "x", None]}) == "177dcbfefb15d603141ecae8301a4114"


def test_the_order_of_a_mapping_does_not_matter():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_digest_tells_values_apart():
    values = [1, "1", 1.5, None, True, [], [1], ["1"], [[1]], {}, {"1": 1}, [1, 2], [2, 1]]
    assert len({digest(value) for value in values}) == len(values)


def test_a_stream_is_the_same_on_every_machine():
    assert random_stream(42, "rows", "angle").integers(0, 1000, 5).tolist() == [
        151,
        982,
        247,
        442,
        454,
    ]


def test_streams_differ_by_seed_and_by_every_label():
    streams = [(42, "rows", "a"), (43, "rows", "a"), (42, "order", "a"), (42, "rows", "b")]
    streams += [(42,), (42, "rows"), (42, "a", "rows")]
    drawn = {tuple(random_stream(*stream).integers(0, 2**62, 4)) for stream in streams}
    assert len(drawn) == len(streams)


def test_streams_of_neighbouring_seeds_are_independent():
    first, second = (random_stream(seed, "order").normal(size=10_000) for seed in (1, 2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
