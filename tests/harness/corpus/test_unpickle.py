"""Malicious pickles are refused with nothing executed; the field's pickles read as plain data."""

from __future__ import annotations

import collections
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imer_bench.harness.corpus.errors import CorpusError, ForbiddenGlobal
from imer_bench.harness.corpus.unpickle import read_pickle

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


class Calls:
    """Pickles as a call of anything with any arguments."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def raw_global(name: bytes, argument: bytes) -> bytes:
    """A protocol 0 call ``name(argument)``; the name is ``module\\nattribute``."""
    return b"c" + name + b"\n(S'" + argument + b"'\ntR."


def stack_global(module: str, name: str, argument: str) -> bytes:
    """A protocol 4 call, whose name may be dotted."""

    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    return b"\x80\x04" + text(module) + text(name) + b"\x93" + text(argument) + b"\x85R."


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A file that exists only if something was executed."""
    return tmp_path / "executed"


def malicious(trap: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles by what they try, with the global that must be named."""
    touch = f"touch {trap}"
    create = f"open({str(trap)!r}, 'w').close()"
    system = f"{os.system.__module__}.system"
    return {
        "os.system": (pickle.dumps(Calls(os.system, touch)), system),
        "os.system, protocol 0": (raw_global(b"os\nsystem", touch.encode()), "os.system"),
        "eval": (pickle.dumps(Calls(eval, create)), "builtins.eval"),
        "eval, protocol 0": (pickle.dumps(Calls(eval, create), protocol=0), "__builtin__.eval"),
        "exec": (pickle.dumps(Calls(exec, create)), "builtins.exec"),
        "subprocess": (pickle.dumps(Calls(subprocess.Popen, ["touch", str(trap)])), "subprocess.Popen"),
        "getattr chain": (
            pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system")),
            "builtins.getattr",
        ),
        "import": (pickle.dumps(Calls(__import__, "os")), "builtins.__import__"),
        "nested in a list": (pickle.dumps({"a": [1, (2, Calls(eval, create))]}), "builtins.eval"),
        "nested in an object array": (
            pickle.dumps(np.array([1, Calls(eval, create)], dtype=object)),
            "builtins.eval",
        ),
        "argument of an allowed call": (
            pickle.dumps(Calls(collections.OrderedDict, [("a", Calls(eval, create))])),
            "builtins.eval",
        ),
        "dotted name": (
            stack_global("numpy", "core.multiarray.scalar.__class__", touch),
            "numpy.core.multiarray.scalar.__class__",
        ),
        "dotted module of an allowed name": (
            stack_global("collections", "OrderedDict.fromkeys", "a"),
            "collections.OrderedDict.fromkeys",
        ),
        "numpy gadget": (stack_global("numpy.testing._private.utils", "runstring", create), "runstring"),
        "numpy loads pickles": (stack_global("numpy", "load", str(trap)), "numpy.load"),
        "numpy maps files": (stack_global("numpy", "memmap", str(trap)), "numpy.memmap"),
        "torch loads": (stack_global("torch", "load", str(trap)), "torch.load"),
        "pickle in pickle": (
            pickle.dumps(Calls(pickle.loads, pickle.dumps(Calls(eval, create)))),
            "_pickle.loads",
        ),
        "instance opcode": (b"(S'" + touch.encode() + b"'\nios\nsystem\n.", "os.system"),
        "object opcode": (b"(cos\nsystem\nS'" + touch.encode() + b"'\no.", "os.system"),
        "file": (stack_global("io", "open", str(trap)), "io.open"),
        "copyreg": (stack_global("copyreg", "_reconstructor", "a"), "copyreg._reconstructor"),
        "operator": (stack_global("operator", "attrgetter", "system"), "operator.attrgetter"),
        "functools": (stack_global("functools", "partial", "a"), "functools.partial"),
        "this package": (stack_global("imer_bench.harness.files", "write_text", str(trap)), "write_text"),
    }


@pytest.mark.parametrize("name", list(malicious(Path("x"))))
def test_a_forbidden_global_is_named_and_nothing_runs(name: str, trap: Path) -> None:
    data, forbidden = malicious(trap)[name]
    with pytest.raises(ForbiddenGlobal) as caught:
        read_pickle(data)
    assert forbidden in str(caught.value)
    assert not trap.exists()


def test_the_traps_work(trap: Path) -> None:
    """The pickles above do execute in an ordinary unpickler, so the test above can fail."""
    harmful = ("eval", "os.system", "nested in an object array", "pickle in pickle", "instance opcode")
    for name in harmful:
        pickle.loads(malicious(trap)[name][0])
        assert trap.exists(), name
        trap.unlink()


def test_an_allowed_unpickler_does_not_run_the_arguments_of_a_later_forbidden_global(trap: Path) -> None:
    data = pickle.dumps([np.arange(3), Calls(eval, f"open({str(trap)!r}, 'w')")])
    with pytest.raises(ForbiddenGlobal):
        read_pickle(data)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04Pos.system\n.", "persistent id"),
        (b"\x80\x04\x8c\x01aQ.", "persistent id"),
        (b"\x80\x04\x82\x01.", "extension registry"),
        (b"\x80\x05\x97.", "out-of-band"),
    ],
)
def test_opcodes_that_reach_outside_the_stream_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_pickle(data)


class Array:
    """Pickles as an array with a state of our making."""

    def __init__(self, shape: Any, dtype: Any, raw: Any, kind: Any = np.ndarray, start: Any = (0,)) -> None:
        reconstruct = np.empty(0).__reduce__()[0]
        self._call = (reconstruct, (kind, start, b"b"), (1, shape, dtype, False, raw))

    def __reduce__(self) -> Any:
        return self._call


class DType:
    """Pickles as a dtype with a state of our making."""

    def __init__(self, code: str, state: Any) -> None:
        self._call = (np.dtype, (code, False, True), state)

    def __reduce__(self) -> Any:
        return self._call


PLAIN = (3, "<", None, None, None, -1, -1, 0)


@pytest.mark.parametrize(
    "value",
    [
        # An object dtype whose flags deny that it holds references: bytes would become pointers.
        Array((1,), DType("O8", PLAIN), struct.pack("<Q", 0xDEADBEEF)),
        Array((1,), DType("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 8, 0)), b"8" * 8),
        Array((1 << 40,), DType("f8", PLAIN), b"12345678"),
        Array((-1,), DType("f8", PLAIN), b""),
        Array((2,), DType("f8", PLAIN), b"12345678"),
        Array((1,), DType("f8", (3, "<", None, None, None, 1 << 30, -1, 0)), b"1234567"),
        Array((1,), DType("O8", PLAIN), []),
        Array((0,), DType("f8", PLAIN), b"", start=(1 << 40,)),
        Array((0,), DType("f8", PLAIN), b"", kind=np.memmap),
        Array((0,), DType("M8[ns]", PLAIN), b""),
        Calls(np.ndarray, (1 << 30,)),
        Calls(np.dtype, "O,f8"),
        Calls(bytearray, 1 << 40),
        Calls(set, 5),
    ],
)
def test_states_that_break_memory_safety_are_refused(value: Any) -> None:
    with pytest.raises(CorpusError):
        read_pickle(pickle.dumps(value))


def test_constructors_cannot_be_changed_by_a_pickle() -> None:
    # BUILD on a global: c<module>\n<name>\n then a state, then b.
    for name in (b"numpy\ndtype", b"collections\nOrderedDict", b"numpy\nndarray"):
        for state in (b"}S'a'\nK\x01s", b"N}S'a'\nK\x01s\x86", b"}S'__call__'\nN" + b"s"):
            with pytest.raises(CorpusError):
                read_pickle(b"\x80\x02c" + name + b"\n" + state + b"b.")
    ordinary = read_pickle(pickle.dumps([np.arange(2), collections.OrderedDict(a=1)]))
    assert ordinary[1] == {"a": 1}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_come_back_equal(protocol: int) -> None:
    value = {
        "text": ["a", "ä", ""],
        "bytes": b"\x00\xff",
        "numbers": (1, -(2**70), 1.5, True, None),
        "sets": [{1, 2}, frozenset("ab")],
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "scalars": [np.float64(1.25), np.int64(-3), np.float32(0.5), np.str_("x"), np.bool_(True)],
    }
    found = read_pickle(pickle.dumps(value, protocol=protocol))
    assert found == value
    assert list(found["ordered"]) == ["b", "a"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(4, dtype=">f8"),
        np.array(["one", "three"]),
        np.array(["one", None, 3], dtype=object),
        np.array([[1, 2], ["x", None]], dtype=object),
        np.array([True, False]),
        np.array(7),
        np.zeros((0, 5), dtype=np.int32),
        np.arange(10)[::2],
    ],
)
def test_arrays_come_back_equal(array: np.ndarray, protocol: int) -> None:
    found = read_pickle(pickle.dumps({"array": array}, protocol=protocol))["array"]
    assert found.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


def test_byte_strings_of_python_2_are_read_as_latin1() -> None:
    assert read_pickle(b"S'caf\\xe9'\n.") == "café"


def test_torch_tensors_only_where_asked() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12, dtype=torch.float32).reshape(3, 4).T
    data = pickle.dumps({"a": tensor, "b": torch.ones(2, dtype=torch.bfloat16)})
    with pytest.raises(ForbiddenGlobal, match=r"torch\._utils._rebuild_tensor_v2"):
        read_pickle(data)
    found = read_pickle(data, allow_torch=True)
    np.testing.assert_array_equal(found["a"], tensor.numpy())
    np.testing.assert_array_equal(found["b"], [1.0, 1.0])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_malicious_storage_inside_a_tensor_is_refused(trap: Path) -> None:
    pytest.importorskip("torch")
    from torch.storage import _load_from_bytes

    inner = pickle.dumps(Calls(eval, f"open({str(trap)!r}, 'w')"))
    with pytest.raises(CorpusError):
        read_pickle(pickle.dumps(Calls(_load_from_bytes, inner)), allow_torch=True)
    assert not trap.exists()


def test_a_tensor_beyond_its_storage_is_refused() -> None:
    torch = pytest.importorskip("torch")
    rebuild, (storage, *_), *_ = torch.ones(4).__reduce_ex__(2)
    for size, stride in (((5,), (1,)), ((1 << 40,), (0,)), ((2, 2), (2, 4)), ((-1,), (1,))):
        with pytest.raises(CorpusError):
            read_pickle(pickle.dumps(Calls(rebuild, storage, 0, size, stride, False, {})), allow_torch=True)


@pytest.mark.parametrize("data", [b"", b"\x80\x04", b"nonsense", b"\x80\x04].]", pickle.dumps([1])[:-1]])
def test_broken_streams_are_errors_a_user_can_read(data: bytes) -> None:
    if data == b"\x80\x04].]":
        assert read_pickle(data) == []
        return
    with pytest.raises(CorpusError, match="not a sound pickle"):
        read_pickle(data)


def test_reading_refuses_in_a_fresh_process_without_importing_the_module(tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(stack_global("antigravity", "fly", "x"))
    code = (
        "import sys; from pathlib import Path\n"
        "from imer_bench.harness.corpus.unpickle import read_pickle\n"
        f"try: read_pickle(Path({str(path)!r}))\n"
        "except Exception as error: print(error)\n"
        "print('antigravity' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "bad.pkl asks for the forbidden global 'antigravity.fly'" in done.stdout
    assert done.stdout.endswith("False\n")


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not at hand")
def test_the_published_label_file_and_tensors_read_as_data() -> None:
    videos = read_pickle(DATA / "cmu_mosi" / "original" / "CMUMOSI_features_raw_2way.pkl")
    assert [len(part) for part in videos] == [93, 93, 93, 93, 52, 10, 31]
    assert sum(map(len, videos[0].values())) == 2199
    mel = read_pickle(DATA / "meld_dev" / "original" / "audio_mel_val.pkl", allow_torch=True)
    assert mel.shape == (1108, 300)
