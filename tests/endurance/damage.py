"""Ways to damage a file of a store: bytes, JSON values, and headers of safetensors files."""

import json
import struct

STRANGE = [
    None, True, False, 0, -1, 1, 2**31, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), "",
    "none", "1", "../../../etc/passwd", "/etc/passwd", "é\x1b[31m\u202e", "=1+1", "<script>",
    "x" * 100_000, [], [1], {}, {"a": [None]}, [[[]]], {"": ""},
]  # fmt: skip


def damaged(path, rng):
    """The content of a file, damaged in a way that the random generator chooses."""
    content = path.read_bytes()
    ways = [_bytes, _bytes]
    if path.suffix == ".json":
        ways += [_values, _values, _texts]
    if path.suffix == ".safetensors":
        ways += [_header, _header]
    if path.suffix == ".csv":
        ways += [_cells, _cells]
    return rng.choice(ways)(content, rng)


def _bytes(content, rng):
    place = rng.randrange(len(content))
    flipped = bytes([content[place] ^ (1 << rng.randrange(8))])
    return rng.choice([
        b"",
        content[:place],
        content[place:],
        content[:place] + flipped + content[place + 1 :],
        content[:place] + rng.randbytes(3) + content[place:],
        content + b"\0",
        content + content,
        rng.randbytes(len(content)),
        b"\x80\x04\x95",  # the beginning of a pickle
    ])  # fmt: skip


def _texts(content, rng):
    return rng.choice([
        b"[]", b"{}", b"null", b"1", b'"x"', b'{"x": 1}', b"[" * 10_000, b'{"a":' * 10_000,
        content.decode().encode("utf-16"), b"\xe9" + content, b"\xef\xbb\xbf" + content,
        b'{"a": ' + b"9" * 5000 + b"}", b" " * (2**24 + 1),
        content.replace(b"{", b'{"seed": 1, "seed": 2, ', 1),
    ])  # fmt: skip


def _values(content, rng):
    """Change, remove or add one value anywhere in a JSON file."""
    value = json.loads(content)
    changed = _changed(value, rng)
    return json.dumps(changed).encode()


def _changed(value, rng):
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.05:
        return rng.choice(STRANGE)
    keys = [*value] if isinstance(value, dict) else [*range(len(value))]
    key, copy = rng.choice(keys), value.copy()
    way = rng.random()
    if way < 0.2:
        del copy[key]
    elif way < 0.3 and isinstance(copy, dict):
        copy[rng.choice(["x", "", "../x", "seed", "é"])] = rng.choice(STRANGE)
    elif way < 0.4 and isinstance(value[key], int) and value[key] < 2**40:
        copy[key] = value[key] + rng.choice([-1, 1, 10])  # a value that may be allowed
    else:
        copy[key] = _changed(value[key], rng)
    return copy


def _header(content, rng):
    """Change the header of a safetensors file, or the length that it declares."""
    (length,) = struct.unpack("<Q", content[:8])
    header, rest = content[8 : 8 + length], content[8 + length :]
    if rng.random() < 0.3:
        lengths = [0, 1, length - 1, length + 8, len(content), 2**24 + 1, 2**40, 2**63, 2**64 - 1]
        return struct.pack("<Q", rng.choice(lengths)) + header + rest
    text = rng.choice([_values, _texts, _bytes])(header, rng)
    return struct.pack("<Q", len(text)) + text + rest


def _cells(content, rng):
    lines = [line.split(",") for line in content.decode().splitlines()]
    row = rng.choice(lines)
    row[rng.randrange(len(row))] = str(rng.choice(STRANGE))
    kept = lines if rng.random() < 0.8 else lines[: rng.randrange(len(lines))]
    return "\n".join(map(",".join, kept)).encode()
