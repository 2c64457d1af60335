"""Changes of valid files: of their bytes, and of what their formats mean (a key, a type, a shape, an opcode).

Every choice comes from one ``random.Random``: hypothesis gives one that it can shrink, the long runs one
with a seed, atheris one with libFuzzer's seed.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import pickletools
import struct
import tomllib
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imer_bench.harness.corpus.unpickle import read_pickle

MOST = 1 << 20  # bytes of a mutated file

WORDS: tuple[str, ...] = (
    *(
        "",
        " ",
        "\0",
        "a" * 300,
        "../../escaped",
        "/etc/passwd",
        "~",
        ".",
        "con",
        "nan",
        "-inf",
        "1e400",
        "-0",
    ),
    *("<script>alert(1)</script>", "=cmd|'/c calc'!A0", "\\input{/etc/passwd}", "%s%n", "{0.__class__}", "'"),
    *(
        "\u202egnp.exe",
        "e\u0301",
        "\U0001f4a5",
        "\x1b[2J",
        "\ufeff",
        "line\nbreak",
        "\t",
        "\uffff",
        "ß",
        "０",
    ),
    *("complete", "random-0.3", "random-0.999", "fixed-", "finished", "True", "null", "__class__", "a.b.c"),
    *("random-1e-300", "fixed-tavtav", "frames-0.5", "9" * 40, "0x10", "1_000", "2026-13-45", "id", "text"),
)
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 7, 255, 256, -(2**31), 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**12, 10**40),
    *(0.0, -0.0, 0.5, 1.5, -1e-300, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), 1e15),
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": {}}, {"a": [1, "b"]}, [0] * 50)
# Pieces of the formats, to be put anywhere.
TOKENS: tuple[bytes, ...] = (
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"'", b"\\", b",", b"{"),
    *(b"}", b"[", b"]", b"=", b":", b"#", b"NaN", b"-Infinity", b"null", b"9" * 5000, b"1e9999", b"[" * 2000),
    *(b'{"a":' * 500, b"a." * 300, b"\\ud800", b"[[x]]\n", b'"""', b"PK\x05\x06", b"PAR1", b"\x93NUMPY"),
    *(struct.pack("<q", value) for value in (-1, 2**31, 2**40, 2**63 - 1)),
    *(b"\x80\x04", b"(", b"t", b"R", b"0", b"2", b"\x94", b"j\xff\xff\xff\x7f", b"cos\nsystem\n", b"b", b"."),
)

Mutation = Callable[[bytes, Random], bytes]


def mutated(content: bytes, kind: str, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """One to three changes of a file.

    Args:
        content: The file; may be changed already.
        kind: Its format, a key of ``STRUCTURAL``; of any other format only bytes are changed.
        random: Where choices come from.
        others: Files to splice with.
    """
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        change = STRUCTURAL.get(kind)
        if change is not None and random.random() < 0.6:
            try:
                content = change(content, random)
            except Exception:  # no longer of its format, or something that the format cannot hold
                content = of_bytes(content, random, others)
        else:
            content = of_bytes(content, random, others)
    return content[:MOST]


# --- Bytes -------------------------------------------------------------------------------------------


def of_bytes(content: bytes, random: Random, others: Sequence[bytes] = ()) -> bytes:
    """Flips, cuts, copies, splices."""
    if not content:
        return random.choice(TOKENS)
    start, end = sorted(random.randrange(len(content) + 1) for _ in range(2))
    end = min(end, start + random.choice((1, 4, 16, 200, len(content))))
    at = min(start, len(content) - 1)
    choice = random.randrange(9)
    if choice == 0:
        return content[:at] + bytes([content[at] ^ (1 << random.randrange(8))]) + content[at + 1 :]
    if choice == 1:
        return content[:at] + bytes([random.choice((0, 1, 0x7F, 0x80, 0xFF))]) + content[at + 1 :]
    if choice == 2:
        return content[:start] + content[end:]
    if choice == 3:
        return content[:end] + content[start:]
    if choice == 4:
        return content[:start] + random.choice(TOKENS) + content[end if random.random() < 0.5 else start :]
    if choice == 5:
        return content[:start]
    if choice == 6:
        other = random.choice(others) if others else content
        there = random.randrange(len(other) + 1)
        return content[:start] + other[there:]
    if choice == 7:
        return content[:start] + content[start:end] * random.choice((2, 10, 100)) + content[end:]
    width = random.choice((2, 4, 8))
    value = random.choice((0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width) - 1, 2 ** (4 * width)))
    return content[:at] + value.to_bytes(width, "little") + content[at + width :]


# --- Trees: JSON, TOML and what a pickle holds -------------------------------------------------------


def scalar(random: Random) -> Any:
    """A value that few expect."""
    return random.choice(random.choice((WORDS, NUMBERS, OTHERS)))


def nested(depth: int, in_lists: bool) -> Any:
    """A value that holds itself over and over."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if in_lists else {"a": value}
    return value


def tree(value: Any, random: Random, leaf: Callable[[Any, Random], Any] | None = None) -> Any:
    """The same tree with one change somewhere."""
    if isinstance(value, dict) and value and random.random() < 0.8:
        key = random.choice(list(value))
        choice = random.randrange(8)
        if choice == 0:
            return {name: item for name, item in value.items() if name != key}
        if choice == 1:
            fresh = random.choice(
                (random.choice(WORDS), f"{key} ", str(key).upper(), random.choice(list(value)))
            )
            return {(fresh if name == key else name): item for name, item in value.items()}
        if choice == 2:
            return {**value, random.choice(WORDS): scalar(random)}
        if choice == 3:
            return {**value, key: value[random.choice(list(value))]}
        return {**value, key: tree(value[key], random, leaf)}
    if isinstance(value, list) and value and random.random() < 0.8:
        at = random.randrange(len(value))
        choice = random.randrange(7)
        if choice == 0:
            return value[:at] + value[at + 1 :]
        if choice == 1:
            return value[:at] + [value[at]] * random.choice((2, 3, 50)) + value[at + 1 :]
        if choice == 2:
            return value[::-1] if random.random() < 0.5 else [*value, scalar(random)]
        return [*value[:at], tree(value[at], random, leaf), *value[at + 1 :]]
    choice = random.randrange(8)
    if choice == 0:
        return nested(random.choice((3, 20, 58, 62, 300)), random.random() < 0.5)
    if choice == 1:
        return [value]
    if choice == 2:
        return {"a": value}
    if choice == 3 and isinstance(value, int | float):
        return str(value) if random.random() < 0.5 else value + random.choice((1, -1, 1e9))
    if choice == 4 and isinstance(value, str):
        return random.choice((value.upper(), value + random.choice(WORDS), value[::-1], value[:-1]))
    if leaf is not None and choice > 4:
        return leaf(value, random)
    return scalar(random)


def _json(content: bytes, random: Random) -> bytes:
    text = json.dumps(tree(json.loads(content), random), ensure_ascii=random.random() < 0.5)
    if random.random() < 0.1 and text.count(",") > 1:  # a key twice, with another value
        piece = random.choice([part for part in text.split(",") if ":" in part] or ['"a": 1'])
        text = text.replace("{", "{" + piece.lstrip("{[ ").rstrip("]}") + ",", 1)
    return text.encode("utf-8", "surrogatepass")


def _json_lines(content: bytes, random: Random) -> bytes:
    lines = content.splitlines()
    at = random.randrange(len(lines))
    lines[at] = _json(lines[at], random).replace(b"\n", b" ")
    return b"\n".join(random.choice((lines, lines, lines, lines[::-1], lines * 2))) + b"\n"


def _toml(content: bytes, random: Random) -> bytes:
    document = tree(tomllib.loads(content.decode()), random)
    text = "\n".join(f"{json.dumps(key)} = {_toml_value(value)}" for key, value in document.items())
    return text.encode("utf-8", "surrogatepass")


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{json.dumps(str(key))} = {_toml_value(item)}" for key, item in value.items())
        return f"{{{inside}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps("" if value is None else str(value))


# --- Tables ------------------------------------------------------------------------------------------


def _csv(content: bytes, random: Random) -> bytes:
    rows = list(csv.reader(io.StringIO(content.decode())))
    line, at = random.randrange(len(rows)), random.randrange(len(rows[0]))
    choice = random.randrange(7)
    if choice == 0:
        rows = [row[:at] + row[at + 1 :] for row in rows]
    elif choice == 1:
        rows = [[*row, row[at]] for row in rows]
    elif choice == 2:
        rows[line] = rows[line] * random.choice((0, 2, 300))
    elif choice == 3:
        rows = random.choice((rows[:1], rows[1:], [rows[0], *rows], rows[::-1], rows * 3))
    elif choice == 4:
        word = str(scalar(random))
        rows = [rows[0], *([*row[:at], word, *row[at + 1 :]] for row in rows[1:])]
    else:
        rows[line][at] = str(scalar(random))
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=random.choice(",,,,;\t")).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


_TYPES = (
    pa.int8(),
    pa.int64(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.string(),
    pa.bool_(),
    pa.large_string(),
    pa.binary(),
    pa.date32(),
    pa.timestamp("ns"),
    pa.duration("s"),
    pa.decimal128(38, 9),
    pa.null(),
    pa.time64("us"),
    pa.binary(4),
)


def _parquet(content: bytes, random: Random) -> bytes:
    table = pq.read_table(io.BytesIO(content))
    at = random.randrange(table.num_columns)
    name, column = table.schema.names[at], table.column(at)
    choice = random.randrange(9)
    if choice == 0:
        table = table.drop_columns([name])
    elif choice == 1:
        other = random.choice((*WORDS, *table.schema.names))
        table = table.rename_columns([other if one == name else one for one in table.schema.names])
    elif choice == 2:
        table = table.set_column(at, name, pa.nulls(len(table), random.choice((column.type, *_TYPES))))
    elif choice == 3:
        table = table.set_column(at, name, column.cast(random.choice(_TYPES), safe=False))
    elif choice == 4:
        value = scalar(random)
        table = table.set_column(at, name, pa.array([value] * len(table)))
    elif choice == 5:
        values = column.to_pylist()
        values[random.randrange(len(values))] = random.choice((None, *NUMBERS, *WORDS))
        table = table.set_column(at, name, pa.array(values, from_pandas=False))
    elif choice == 6:
        table = random.choice((table.slice(0, 0), table.slice(1), pa.concat_tables([table] * 3), table[::-1]))
    elif choice == 7:
        table = table.append_column(random.choice(WORDS), pa.array([scalar(random)] * len(table)))
    else:
        metadata = dict(table.schema.metadata or {})
        key = random.choice(list(metadata) or [b"a"])
        metadata[key] = _json(metadata.get(key, b"{}"), random)
        table = table.replace_schema_metadata(metadata)
    target = io.BytesIO()
    codec = random.choice(("zstd", "snappy", "none", "gzip", "brotli", "lz4"))
    pq.write_table(table, target, compression=codec, use_dictionary=random.random() < 0.5)
    return target.getvalue()


# --- Arrays ------------------------------------------------------------------------------------------

_DTYPES = ("<f4", "<f8", "<i8", "|b1", "|u1", "|O", "|S5", "<U3", "<M8[s]", "<f2", ">f4", "<c16", "|V8", "x")
_SIZES = (0, 1, 2, 3, -1, 2**31, 2**40, 2**63 - 1, 2**64, 10**30)


def array(value: np.ndarray, random: Random) -> np.ndarray:
    """The array with other values, another shape or another type."""
    choice = random.randrange(7)
    if choice == 0:
        return value[: random.randrange(len(value) + 1)] if value.ndim else value[None]
    if choice == 1:
        return np.concatenate([value] * 2) if value.ndim else value
    if choice == 2:
        return value[..., None] if random.random() < 0.5 else value.reshape(-1)
    if choice == 3:
        return value.astype(random.choice(("f2", "f8", "i1", "u8", "bool", "S3", "U2", "O", "c8")))
    if choice == 4:
        changed = value.astype(np.float64)
        changed.reshape(-1)[random.randrange(changed.size)] = float(
            random.choice([number for number in NUMBERS if abs(number) < 1e300 or number != number])
        )
        return changed
    if choice == 5:
        return np.swapaxes(value, 0, -1) if value.ndim else value
    return np.full(value.shape, random.choice((np.nan, np.inf, 0.0, 1e38, -1.0)))


def _npy(content: bytes, random: Random) -> bytes:
    value = np.load(io.BytesIO(content), allow_pickle=False)
    if random.random() < 0.6:
        target = io.BytesIO()
        np.save(target, array(value, random), allow_pickle=True)
        return target.getvalue()
    shape = [random.choice((size, *_SIZES)) for size in value.shape] * random.choice((1, 1, 2, 20))
    descr = random.choice((value.dtype.str, *_DTYPES))
    header: Any = {"descr": descr, "fortran_order": random.random() < 0.3, "shape": tuple(shape)}
    text = repr(tree(header, random) if random.random() < 0.3 else header).encode("utf-8", "replace") + b"\n"
    version, width = random.choice(((b"\1\0", "<H"), (b"\2\0", "<I"), (b"\3\0", "<I"), (b"\x09\0", "<H")))
    length = min(len(text), 65535) if random.random() < 0.8 else 65535
    return b"\x93NUMPY" + version + struct.pack(width, length) + text + value.tobytes()


def _npz(content: bytes, random: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {item.filename: archive.read(item) for item in archive.infolist()}
    name = random.choice(list(members))
    choice = random.randrange(5)
    if choice == 0:
        del members[name]
    elif choice == 1:
        members[random.choice((*WORDS, "/abs.npy", "../../up.npy", "text.npy", "audio_lengths.npy"))] = (
            members[name]
        )
    else:
        members[name] = _npy(members[name], random)
    target = io.BytesIO()
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(target, "w", method) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return target.getvalue()


def _safetensors(content: bytes, random: Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    if random.random() < 0.5:
        header = tree(header, random)
    else:
        name = random.choice(list(header))
        entry = dict(header[name])
        choice = random.randrange(4)
        if choice == 0:
            entry["dtype"] = random.choice(("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "X"))
        elif choice == 1:
            entry["shape"] = [random.choice((size, *_SIZES)) for size in entry.get("shape", [])]
        elif choice == 2:
            entry["data_offsets"] = [random.choice((at, *_SIZES)) for at in entry.get("data_offsets", [0, 0])]
        else:
            header[random.choice(WORDS)] = entry
        header[name] = entry
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    size = len(text) if random.random() < 0.9 else random.choice((0, 2**32, 2**63, len(text) + 1))
    return struct.pack("<Q", size) + text + data


# --- Pickles -----------------------------------------------------------------------------------------


def _pickle(content: bytes, random: Random) -> bytes:
    if random.random() < 0.5:
        value = read_pickle(content, allow_torch=True)
        return pickle.dumps(tree(value, random, _pickled), protocol=random.choice((2, 3, 4, 5)))
    starts = [position or 0 for _, _, position in pickletools.genops(content)]
    pieces = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    at, other = random.randrange(len(pieces)), random.randrange(len(pieces))
    choice = random.randrange(5)
    if choice == 0:
        del pieces[at]
    elif choice == 1:
        pieces.insert(at, pieces[other])
    elif choice == 2:
        pieces[at], pieces[other] = pieces[other], pieces[at]
    elif choice == 3:
        pieces[at:at] = pieces[other : other + random.randrange(20)] * random.choice((1, 1, 40))
    else:
        pieces.insert(at, random.choice(_OPCODES))
    return b"".join(pieces)


_OPCODES = tuple(
    [
        *(info.code.encode("latin1") for info in pickletools.opcodes if info.arg is None),
        *(b"\x8c\x04eval", b"cbuiltins\neval\n", b"cnumpy\nndarray\n", b"\x8e" + b"\xff" * 8),
        *(
            b"\x96\xff\xff\xff\x7f\0\0\0\0",
            b"\x8a\xff",
            b"I999999999999\n",
            b"L9L\n",
            b"Vx\n",
            b"\x95" + b"\xff" * 8,
        ),
        *(
            b"p99999999\n",
            b"r\xff\xff\xff\x7f",
            b"h\x00",
            b"\x82\x01",
            b"Pid\n",
            b"ios\nsystem\n",
            b"F1e999\n",
        ),
    ]
)


def _pickled(value: Any, random: Random) -> Any:
    """Values that only a pickle can hold."""
    if isinstance(value, np.ndarray) and value.size:
        return array(value, random)
    if isinstance(value, np.generic):
        return random.choice(
            (value.dtype.type(0), np.float32(np.nan), np.int64(-1), np.str_("x"), np.bool_(True))
        )
    if isinstance(value, set | frozenset):
        return random.choice((set(), {*value, "other"}, {1, 2}, frozenset(value), list(value)))
    return random.choice(
        (
            b"bytes",
            {1, 2},
            (1, 2),
            10**30,
            10**12,
            complex(1, 2),
            np.arange(3),
            np.float64("inf"),
            {1: 2},
            np.zeros((0, 3)),
            np.array(["a", "b"]),
            bytearray(b"x"),
        )
    )


STRUCTURAL: dict[str, Mutation] = {
    "json": _json,
    "jsonl": _json_lines,
    "toml": _toml,
    "csv": _csv,
    "parquet": _parquet,
    "npy": _npy,
    "npz": _npz,
    "safetensors": _safetensors,
    "pickle": _pickle,
}
