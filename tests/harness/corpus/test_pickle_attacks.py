"""A corpus of malicious pickles: one technique each, none executes anything, each is named in the message."""

from __future__ import annotations

import bz2
import collections
import copyreg
import gzip
import io
import lzma
import pickle
import struct
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imer_bench.harness.corpus.errors import CorpusError, ForbiddenGlobal
from imer_bench.harness.corpus.unpickle import read_pickle

# Callables that run code, open files or import, in the standard library and in what an environment of
# this project holds. The pickles only name them, so none needs to be there.
GADGETS = """
os.system posix.system nt.system os.popen os.execv os.spawnl os.posix_spawn os.remove os.putenv
subprocess.Popen subprocess.call subprocess.run subprocess.check_output subprocess.getoutput
_posixsubprocess.fork_exec pty.spawn commands.getoutput popen2.popen2 asyncio.create_subprocess_shell
builtins.eval builtins.exec builtins.compile builtins.__import__ builtins.getattr builtins.setattr
builtins.open builtins.globals builtins.map builtins.breakpoint builtins.type builtins.object
builtins.print builtins.input builtins.vars builtins.delattr builtins.memoryview builtins.super
builtins.property __builtin__.eval __builtin__.execfile __builtin__.apply __builtin__.file
__builtin__.getattr __main__.run importlib.import_module importlib._bootstrap._load_unlocked
imp.load_source runpy.run_path runpy.run_module code.InteractiveInterpreter codeop.compile_command
timeit.timeit timeit.main cProfile.run profile.run pdb.run bdb.Bdb.run trace.Trace doctest.testfile
webbrowser.open pydoc.pipepager pydoc.locate test.support.run_code types.FunctionType types.CodeType
marshal.loads ctypes.CDLL ctypes.cdll.LoadLibrary _ctypes.dlopen operator.attrgetter
operator.methodcaller operator.itemgetter _operator.attrgetter functools.partial functools.reduce
itertools.starmap copyreg._reconstructor copyreg.__newobj__ copyreg.add_extension
copy_reg._reconstructor pickle.loads pickle.load pickle.Unpickler _pickle.loads _pickle.Unpickler
shelve.open dbm.open zipimport.zipimporter pkgutil.get_loader inspect.getmodule ensurepip.bootstrap
pip.main io.open io.FileIO _io.open codecs.open pathlib.Path pathlib.Path.write_text shutil.rmtree
tempfile.mktemp socket.create_connection socket.socket http.server.test urllib.request.urlopen
smtplib.SMTP ftplib.FTP logging.config.fileConfig logging.FileHandler multiprocessing.Process
threading.Thread signal.alarm sys.exit sys.settrace sys.modules.get gc.get_objects weakref.finalize
atexit.register collections.namedtuple collections.defaultdict collections.Counter enum.Enum
string.Formatter.format numpy.load numpy.fromfile numpy.memmap numpy.loadtxt numpy.genfromtxt
numpy.fromregex numpy.save numpy.vectorize numpy.frompyfunc numpy.fromfunction numpy.apply_along_axis
numpy.DataSource numpy.info numpy.core.multiarray.fromfile numpy.core.multiarray.set_string_function
numpy.core.numeric.fromfunction numpy.lib.npyio.load numpy.lib.npyio.NpzFile numpy.lib.format.read_array
numpy.lib.format.open_memmap numpy.testing._private.utils.runstring numpy.testing.rundocs
numpy.testing.measure numpy.f2py.compile numpy.f2py.crackfortran.getlincoef
numpy.f2py.capi_maps.load_f2cmap_file numpy.f2py.diagnose.run_command
numpy.distutils.exec_command.exec_command numpy.distutils.misc_util.exec_mod
numpy.ctypeslib.load_library numpy.random.__generator_ctor numpy.random._pickle.__bit_generator_ctor
numpy.core.records.fromrecords numpy.ma.core._mareconstruct numpy.rec.fromfile numpy.polynomial.eval
scipy.io.loadmat scipy.io.readsav scipy.sparse.load_npz scipy._lib._ccallback.LowLevelCallable
scipy.misc.common.face scipy.weave.inline scipy.integrate.quad scipy.optimize.minimize torch.load
torch.hub.load torch.jit.load torch.jit.script torch.package.PackageImporter torch.classes.load_library
torch.ops.load_library torch.serialization.load torch.serialization._load torch._utils._rebuild_tensor
torch._utils._rebuild_parameter torch._utils._import_dotted_name torch._utils._rebuild_wrapper_subclass
torch._tensor._rebuild_from_type_v2 torch.nn.modules.module.Module torch.utils.cpp_extension.load_inline
torch.utils.data.datapipes.utils.decoder.basichandlers torch.distributed.rpc.rpc_sync
torch.fx.graph_module torch.fx.graph_module.reduce_graph_module torch.multiprocessing.spawn
torch.storage.UntypedStorage.from_file torch._inductor.codecache.compile_file
torch.utils._config_module.load_config torch.utils.collect_env.run pandas.read_pickle pandas.eval
pandas.read_csv pandas.io.pickle.read_pickle pandas.compat.pickle_compat.load
pandas.core.computation.eval.eval pandas.core.frame.DataFrame.query pandas.core.frame.DataFrame
pandas._libs.internals._unpickle_block pandas.io.common.get_handle
pandas.core.internals.managers.BlockManager joblib.load joblib.numpy_pickle.NumpyArrayWrapper
joblib.externals.cloudpickle.loads joblib.hashing.hash cloudpickle.loads
cloudpickle.cloudpickle._make_function cloudpickle.cloudpickle._builtin_type dill.loads
sklearn.utils._testing.run sklearn.tree._tree.Tree transformers.pipeline yaml.unsafe_load
jsonpickle.decode mlflow.pyfunc.load_model mlflow.sklearn.load_model skops.io.load optuna.load_study
sqlite3.connect matplotlib.cbook._unpickle matplotlib.pyplot.figure PIL.Image.open h5py.File
ruamel.yaml.load django.utils.autoreload.run IPython.get_ipython pytest.main setuptools.setup
distutils.spawn.spawn imer_bench.harness.files.write_text imer_bench.harness.registry.method_info
imer_bench.harness.cli.main
""".split()  # noqa: SIM905


def text(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def called(module: str, name: str, argument: str, form: str) -> bytes:
    """A call of ``module.name(argument)`` by one of the six ways that opcodes offer."""
    stack = text(module) + text(name) + b"\x93"
    line = f"c{module}\n{name}\n".encode()
    string = b"S'" + argument.encode() + b"'\n"
    return {
        "GLOBAL": line + b"(" + string + b"tR.",
        "STACK_GLOBAL": b"\x80\x04" + stack + text(argument) + b"\x85R.",
        "INST": b"(" + string + f"i{module}\n{name}\n.".encode(),
        "OBJ": b"(" + line + string + b"o.",
        "NEWOBJ": b"\x80\x02" + line + string + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + stack + text(argument) + b"\x85}\x92.",
    }[form]


FORMS = ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX")


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A file that exists only if something was executed."""
    return tmp_path / "executed"


@pytest.mark.parametrize("form", FORMS)
def test_every_gadget_is_refused_by_its_name(form: str, trap: Path) -> None:
    argument = f"open({str(trap)!r}, 'w').close()".replace("'", '"')
    for gadget in GADGETS:
        module, _, name = gadget.rpartition(".")
        for allow_torch in (False, True):
            with pytest.raises(ForbiddenGlobal) as caught:
                read_pickle(called(module, name, argument, form), allow_torch)
            assert f"asks for the forbidden global {gadget!r}; it was refused" in str(caught.value)
    assert not trap.exists()


# Names that lead from an allowed global to another one, or look like an allowed one.
NAMES = [
    ("numpy", "core.multiarray._reconstruct.__globals__"),
    ("numpy.core.multiarray", "_reconstruct.__globals__"),
    ("numpy.core.multiarray", "_reconstruct.__class__"),
    ("numpy", "dtype.__class__"),
    ("numpy", "ndarray.tofile"),
    ("numpy", "os.system"),
    ("numpy", "sys.modules"),
    ("collections", "OrderedDict.__init__.__globals__"),
    ("collections", "_sys.modules"),
    ("builtins", "set.__init_subclass__"),
    ("builtins", "bytes.fromhex"),
    ("builtins", "frozenset.__subclasses__"),
    ("os.path", "os.system"),
    ("posixpath", "os.system"),
    ("builtins ", "set"),
    ("Builtins", "set"),
    ("builtins", "set\x00"),
    ("builtins", ""),
    ("", "set"),
    (".builtins", "set"),
    ("builtins.", "set"),
    ("builtіns", "set"),  # a Cyrillic i
    ("numpy.core.multiarray", "ѕcalar"),  # a Cyrillic s
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("torch.storage", "_load_from_bytes.__globals__"),
    ("torch.storage", "io.open"),
]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_dotted_and_lookalike_names_lead_nowhere(module: str, name: str) -> None:
    with pytest.raises(ForbiddenGlobal):
        read_pickle(called(module, name, "x", "STACK_GLOBAL"), allow_torch=True)


class Calls:
    """Pickles as a call of anything with any arguments, and a state if there is one."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self._call = (function, arguments) + (() if state is None else (state,))

    def __reduce__(self) -> Any:
        return self._call


def evil(trap: Path) -> Calls:
    return Calls(eval, f"open({str(trap)!r}, 'w').close()")


def nested(trap: Path) -> dict[str, bytes]:
    """The same call wherever a pickle can hold a value."""
    bad = evil(trap)
    reconstruct = np.empty(0).__reduce__()[0]
    values = {
        "list": [bad],
        "dictionary value": {"a": bad},
        "tuple": (1, bad),
        "deep": {"a": [({"b": [bad]},)]},
        "object array": np.array([1, bad], dtype=object),
        "argument of set": Calls(set, [bad]),
        "argument of OrderedDict": Calls(collections.OrderedDict, [("a", bad)]),
        "argument of dtype": Calls(np.dtype, bad),
        "argument of scalar": Calls(np.float64(1).__reduce__()[0], bad, b"12345678"),
        "shape of an array": Calls(reconstruct, np.ndarray, bad, b"b"),
        "state of an array": Calls(reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), bad, False, b"1")),
        "items of an object array": Calls(
            reconstruct, np.ndarray, (0,), b"b", state=(1, (1,), np.dtype("O"), False, [bad])
        ),
    }
    return {
        f"{name}, protocol {protocol}": pickle.dumps(value, protocol)
        for name, value in values.items()
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    }


@pytest.mark.parametrize("name", list(nested(Path("x"))))
def test_a_call_is_found_wherever_it_hides(name: str, trap: Path) -> None:
    with pytest.raises(ForbiddenGlobal, match=r"(builtins|__builtin__)\.eval"):
        read_pickle(nested(trap)[name])
    assert not trap.exists()


def test_the_traps_work(trap: Path) -> None:
    """An ordinary unpickler does execute them, in every protocol; so the tests above can fail."""
    for name, data in nested(trap).items():
        try:
            pickle.loads(data)
        except Exception:  # the value that the call gives is of no use to the constructor around it
            assert trap.exists(), name
        assert trap.exists(), name
        trap.unlink()


def opcode_tricks(trap: Path) -> dict[str, tuple[bytes, str]]:
    """Programs beyond calls, with a part of the message."""
    run = f"open({str(trap)!r}, 'w').close()".replace("'", '"').encode()
    evil_call = b"cbuiltins\neval\n(S'" + run + b"'\ntR"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    dtype = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR"
    return {
        "persistent id": (b"Pos.system\n.", "persistent id"),
        "binary persistent id": (b"\x80\x04" + text("os.system") + b"Q.", "persistent id"),
        "extension code 1": (b"\x80\x02\x82\xf0.", "extension registry"),
        "extension code 2": (b"\x80\x02\x83\xf0\x00.", "extension registry"),
        "extension code 4": (b"\x80\x02\x84\xf0\x00\x00\x00.", "extension registry"),
        "buffer": (b"\x80\x05\x97.", "out-of-band buffer"),
        "read-only buffer": (b"\x80\x05]\x98.", "out-of-band buffer"),
        "state of a constructor": (b"cnumpy\ndtype\n}S'call'\n" + evil_call + b"sb.", "builtins.eval"),
        "dictionary as state of a constructor": (b"cnumpy\ndtype\n}S'a'\nI1\nsb.", "change a constructor"),
        "slots as state of a constructor": (b"cbuiltins\nset\nN}S'_StandIn__call'\nI1\ns\x86b.", "change a"),
        "state of numpy.ndarray": (b"cnumpy\nndarray\n}S'a'\nI1\nsb.", "change a constructor"),
        "state of a list": (b"]}S'__class__'\nI1\nsb.", "change a constructor or value"),
        "state of a set": (
            b"\x80\x04\x8f}" + text("__class__") + b"K\x01sb.",
            "change a constructor or value",
        ),
        "state of a dtype": (dtype + b"}S'dtype'\nI1\nsb.", "structured or unknown dtype"),
        "attributes of an array": (array + b"}S'__array_finalize__'\nI1\nsb.", "unknown state"),
        "two states of an array": (
            array + b"(I1\n(I0\nt" + dtype + b"I0\nS''\ntb(I1\n(I0\nt" + dtype + b"I0\nS''\ntb.",
            "fills an array twice",
        ),
        "call of a value": (b"S'a'\n(tR.", "calls what is no constructor"),
        "call of numpy.ndarray": (b"cnumpy\nndarray\n(I9\ntR.", "calls what is no constructor"),
        "arguments that are no tuple": (b"cbuiltins\nset\n]R.", "calls what is no constructor"),
        "instance of an allowed name": (b"cbuiltins\nset\n)\x81.", "builds an instance"),
        "instance by INST": (b"(ibuiltins\nset\n.", "builds an instance"),
        "append to an array": (array + b"I1\na.", "what is no list"),
        "append to a constructor": (b"cbuiltins\nset\nI1\na.", "what is no list"),
        "items of an array": (array + b"I0\nI1\ns.", "what is no dictionary"),
        "items of a set": (b"\x80\x04]K\x01(K\x02\x90.", "what is no set"),
        "a name made of pieces": (
            b"\x80\x04" + text("o") + text("s") + b"0" + text("system") + b"\x93.",
            "o.system",
        ),
        "a name from the memo": (
            b"\x80\x04" + text("os") + b"\x940h\x00" + text("system") + b"\x93.",
            "os.system",
        ),
        "a name that is no text": (b"\x80\x04K\x01K\x02\x93.", "not a sound pickle"),
        "an allowed call after a forbidden one": (evil_call + b"0cbuiltins\nset\n(]tR.", "builtins.eval"),
        "unknown opcode": (b"\xff.", "not a sound pickle"),
        "protocol 6": (b"\x80\x06N.", "not a sound pickle"),
    }


@pytest.mark.parametrize("name", list(opcode_tricks(Path("x"))))
def test_tricks_with_opcodes_are_refused_and_named(name: str, trap: Path) -> None:
    data, message = opcode_tricks(trap)[name]
    with pytest.raises(CorpusError, match=message):
        read_pickle(data)
    assert not trap.exists()


def test_a_registered_extension_is_not_looked_up(trap: Path) -> None:
    copyreg.add_extension("builtins", "eval", 240)
    try:
        with pytest.raises(CorpusError, match="extension registry"):
            read_pickle(b"\x80\x02\x82\xf0(S'open(\"" + str(trap).encode() + b'","w")\'\ntR.')
    finally:
        copyreg.remove_extension("builtins", "eval", 240)
    assert not trap.exists()


def test_a_pickle_behind_the_end_is_not_read(trap: Path) -> None:
    assert read_pickle(pickle.dumps([1]) + pickle.dumps(evil(trap))) == [1]
    assert not trap.exists()


def packed(data: bytes) -> dict[str, bytes]:
    archive, tape, npz, npy = (io.BytesIO() for _ in range(4))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", data)
    with tarfile.open(fileobj=tape, mode="w") as file:
        info = tarfile.TarInfo("../data.pkl")
        info.size = len(data)
        file.addfile(info, io.BytesIO(data))
    np.save(npy, np.array([1, None], dtype=object), allow_pickle=True)
    np.savez(npz, a=np.array([1, None], dtype=object))
    return {
        "gzip": gzip.compress(data),
        "bzip2": bz2.compress(data),
        "xz": lzma.compress(data),
        "zip": archive.getvalue(),
        "tar": tape.getvalue(),
        "zstd": b"\x28\xb5\x2f\xfd" + data,
        "HDF5": b"\x89HDF\r\n\x1a\n" + data,
        "NumPy": npy.getvalue(),
        "twice gzip": gzip.compress(gzip.compress(data)),
    }


@pytest.mark.parametrize("name", list(packed(b"")))
def test_compressed_pickles_are_not_opened(name: str, trap: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(packed(pickle.dumps(evil(trap)))[name])
    kind = {"twice gzip": "gzip"}.get(name, name)
    with pytest.raises(CorpusError, match=f"data.pkl is not a sound pickle but an? {kind}"):
        read_pickle(path)
    assert not trap.exists()


def storage(
    numbers: bytes = bytes(16), count: int = 4, kind: str = "FloatStorage", evil_part: bytes = b""
) -> bytes:
    """A tensor's storage in torch's first file format."""
    persistent = b"\x80\x02(X\x07\x00\x00\x00storagectorch\n" + kind.encode() + b"\nX\x01\x00\x00\x000"
    persistent += b"X\x03\x00\x00\x00cpuJ" + struct.pack("<i", count) + b"NtQ."
    return b"".join(
        [
            pickle.dumps(0x1950A86A20F9469CFC6C, 2),
            pickle.dumps(1001, 2),
            evil_part or pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2),
            persistent,
            pickle.dumps(["0"], 2),
            struct.pack("<q", count),
            numbers,
        ]
    )


def tensor(
    inner: bytes, size: tuple[Any, ...] = (4,), stride: tuple[Any, ...] = (1,), offset: Any = 0
) -> bytes:
    def globally(module: str, name: str) -> bytes:
        return f"c{module}\n{name}\n".encode()

    raw = b"B" + struct.pack("<I", len(inner)) + inner
    parts = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, size, stride))
    load = globally("torch.storage", "_load_from_bytes") + raw + b"\x85R"
    return b"\x80\x03" + globally("torch._utils", "_rebuild_tensor_v2") + b"(" + load + parts + b"\x89}tR."


def test_a_tensor_written_by_hand_is_read() -> None:
    """The tensors below are sound but for their trick."""
    found = read_pickle(
        tensor(storage(np.arange(4, dtype="<f4").tobytes()), (2, 2), (2, 1)), allow_torch=True
    )
    np.testing.assert_array_equal(found, [[0, 1], [2, 3]])


def test_it_is_what_torch_writes() -> None:
    torch = pytest.importorskip("torch")
    for dtype in ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"):
        value = (torch.arange(12).reshape(3, 4) % 3).to(getattr(torch, dtype))
        for made in (value, value.T, value[1:, ::2], value[:0], value[1, 2]):
            found = read_pickle(pickle.dumps([made]), allow_torch=True)[0]
            np.testing.assert_array_equal(found, made.numpy())
            assert found.dtype == made.numpy().dtype


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tensor(storage(evil_part=b"cbuiltins\neval\n(S'1'\ntR.")), r"forbidden global 'builtins\.eval'"),
        (tensor(storage(evil_part=b"ctorch\nload\n.")), r"forbidden global 'torch\.load'"),
        (tensor(storage(kind="UntypedStorage")), "forbidden global"),
        (tensor(storage(count=2**30)), "bytes don't fit"),
        (tensor(storage(count=-1)), "bytes don't fit"),
        (tensor(storage(numbers=bytes(12))), "bytes don't fit"),
        (tensor(storage()[:40]), "not a sound pickle"),
        (tensor(b"PK\x03\x04" + bytes(64)), "persistent id|not a sound pickle"),
        (tensor(storage(), (5,)), "beyond its storage"),
        (tensor(storage(), (1 << 40,), (0,)), "beyond its storage"),
        (tensor(storage(), (2, 2), (2, 4)), "beyond its storage"),
        (tensor(storage(), (2,), (1,), 3), "beyond its storage"),
        (tensor(storage(), (-1,), (1,)), "unknown shape"),
        (tensor(storage(), (1,), (-1,)), "unknown shape"),
        (tensor(storage(), (True,), (1,)), "unknown shape"),
        (tensor(storage(), (1,) * 9, (1,) * 9), "beyond its storage"),
    ],
)
def test_tricks_with_tensors_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_pickle(data, allow_torch=True)


# Small files that would grow: each must end within seconds, far below a gigabyte.


def doubling(make: Callable[[bytes], bytes], start: bytes, levels: int) -> bytes:
    """Every level holds the one below twice, through the memo."""
    program = b"\x80\x04" + start + b"\x94"
    for level in range(levels):
        program += make(b"h" + bytes([level])) + b"\x94"
    return program + b"."


def outer_first(levels: int) -> bytes:
    """Lists made empty, then filled from the outside inwards, so that no step looks large."""
    program = b"\x80\x04" + b"]\x94" * levels
    for level in range(levels - 1):
        program += b"h" + bytes([level]) + b"(h" + bytes([level + 1]) + b"h" + bytes([level + 1]) + b"e0"
    return program + b"h\x00."


def deep_arrays(levels: int) -> bytes:
    """Object arrays in object arrays, filled after they were put there."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    dtype = b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR\x94"
    program = b"\x80\x04" + dtype + b"(" + (array + b"\x94") * levels
    for level in range(1, levels):
        index = struct.pack("<I", level)
        program += b"j" + index + b"(K\x01K\x01\x85h\x00\x89](j" + struct.pack("<I", level + 1) + b"etb"
    return program + b"t."


BOMBS: dict[str, bytes] = {
    "tuples of tuples": doubling(lambda part: part * 2 + b"\x86", b"K\x01\x85", 60),
    "lists of lists": doubling(lambda part: b"](" + part * 2 + b"e", b"]K\x01a", 60),
    "lists filled from outside": outer_first(60),
    "dictionaries": doubling(lambda part: b"}(K\x01" + part + b"K\x02" + part + b"u", b"}", 60),
    "tuples as keys": doubling(lambda part: part * 2 + b"\x86", b"K\x01\x85", 60)[:-1] + b"}h\x3cK\x01s.",
    "tuples in sets": doubling(lambda part: part * 2 + b"\x86", b"K\x01\x85", 60)[:-1] + b"\x8f(h\x3c\x90.",
    "tuples in a frozen set": doubling(lambda part: part * 2 + b"\x86", b"K\x01\x85", 60)[:-1]
    + b"(h\x3c\x91.",
    "a deep tuple as a key": b"\x80\x04}" + b")" + b"\x85" * 100_000 + b"K\x01s.",
    "a deep tuple": b"\x80\x04)" + b"\x85" * 100_000 + b".",
    "a deep list": b"\x80\x04" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "deep object arrays": deep_arrays(20_000),
    "a list in itself": b"\x80\x04]\x94h\x00a.",
    "a dictionary in itself": b"\x80\x04}\x94K\x01h\x00s.",
    "an array in itself": deep_arrays(3)[:-2] + b"j\x01\x00\x00\x00t.",
    "a long text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"abc.",
    "a very long text": b"\x80\x04\x8d" + struct.pack("<Q", (1 << 63) - 1) + b"abc.",
    "long bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 33) + b"abc.",
    "a long byte array": b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b"abc.",
    "a long frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 33) + b"N.",
    "a long number": b"\x80\x02\x8b" + struct.pack("<I", (1 << 31) - 1) + b"abc.",
    "a number of many digits": b"I" + b"9" * 200_000 + b"\n.",
    "a memo position": b"\x80\x04K\x01r\xff\xff\xff\x7fj\xff\xff\xff\x7f.",
    "an array of a large shape": pickle.dumps(
        Calls(
            np.empty(0).__reduce__()[0],
            np.ndarray,
            (0,),
            b"b",
            state=(1, (1 << 40,), np.dtype("f8"), False, b""),
        )
    ),
    "an array made large": pickle.dumps(Calls(np.empty(0).__reduce__()[0], np.ndarray, (1 << 40,), b"b")),
    "a byte array made large": pickle.dumps(Calls(bytearray, 1 << 40)),
    "keys with one hash": b"\x80\x02}("
    + b"".join(
        b"\x8a\x11" + (k * (2**61 - 1)).to_bytes(17, "little", signed=True) + b"N" for k in range(40_000)
    )
    + b"u.",
    "a set of a list again and again": b"\x80\x04]\x94("
    + b"".join(b"J" + struct.pack("<i", k) for k in range(20_000))
    + b"e\x85\x940cbuiltins\nset\n\x94("
    + b"h\x02h\x01R" * 20_000
    + b"t.",
    "an array of bytes again and again": b"\x80\x04C\xff"
    + bytes(255)
    + b"\x94cbuiltins\nbytearray\n\x94("
    + b"h\x01h\x00\x85R" * 100_000
    + b"t.",
    "one long text again and again": b"\x80\x04X"
    + struct.pack("<I", 50_000)
    + b"a" * 50_000
    + b"\x940("
    + b"h\x00" * 50_000
    + b"t.",
    "many marks": b"(" * 300_000 + b".",
}
SMALL_MEMORY = 400 << 20  # beyond what the interpreter with NumPy takes: bytes


def test_small_files_do_not_grow(tmp_path: Path) -> None:
    """All in one process that may not take more memory, each within ten seconds of CPU time."""
    for number, data in enumerate(BOMBS.values()):
        (tmp_path / f"{number}.pkl").write_bytes(data)
    code = f"""
        import resource, signal, sys
        from pathlib import Path
        from imer_bench.harness.corpus.errors import CorpusError
        from imer_bench.harness.corpus.unpickle import read_pickle
        here = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + {SMALL_MEMORY},) * 2)
        for number in range({len(BOMBS)}):
            signal.setitimer(signal.ITIMER_PROF, 10)
            try:
                read_pickle(Path(sys.argv[1]) / f"{{number}}.pkl")
                print("read")
            except CorpusError as error:
                assert "MemoryError" not in str(error), error
                print(str(error).replace("\\n", " ")[:200])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True
    )
    answers = dict(zip(BOMBS, done.stdout.splitlines(), strict=False))
    assert done.returncode == 0, f"after {answers}: {done.returncode}\n{done.stderr}"
    assert len(answers) == len(BOMBS)
    # A memo position costs nothing here; anything else is refused.
    assert [name for name, answer in answers.items() if answer == "read"] == ["a memo position"]
