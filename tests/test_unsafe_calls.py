"""No code of this project evaluates text, unpickles outside the reader, or gives text to a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = [ROOT / "bench.py", *(f for folder in ("harness", "methods", "datasets", "benchmarks") for f in
        sorted((ROOT / folder).rglob("*.py")))]  # fmt: skip
# The one place that runs the opcodes of a pickle, with tables of its own.
UNPICKLES = ("harness/corpus/unpickle/reader.py", "harness/corpus/unpickle/tensors.py")

BUILT_IN = ("eval", "exec", "compile", "__import__", "breakpoint", "input")
# By the end of the dotted name, whatever a module was imported as.
NEVER = (
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "pickle._Unpickler",
        "_pickle.loads",
        "_pickle.load",
    ),
    *("dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads", "joblib.load", "shelve.open"),
    *("marshal.load", "marshal.loads", "pd.read_pickle", "pandas.read_pickle", "pd.eval", "pandas.eval"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "torch.hub.load", "torch.jit.load"),
    *("torch.package.PackageImporter", "os.system", "os.popen", "commands.getoutput", "runpy.run_path"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn", "asyncio.create_subprocess_shell"),
    *("np.fromregex", "numpy.f2py.compile", "ctypes.CDLL", "webbrowser.open", "xml.etree.ElementTree.parse"),
    *("tarfile.open", "shutil.unpack_archive", "tempfile.mktemp", "ssl._create_unverified_context"),
)
# Methods of any object whose names alone say what they do.
NEVER_METHODS = ("read_pickle", "extractall", "unpack_archive", "system", "popen", "execfile")
PROCESSES = ("run", "call", "Popen", "check_call", "check_output")


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def problems(source: str, path: str = "a.py") -> Iterator[str]:
    """What a file does that none should, a line each."""
    tree = ast.parse(source)
    origin: dict[str, str] = {}  # local name -> full name
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            origin |= {item.asname or item.name.partition(".")[0]: item.name if item.asname else
                       item.name.partition(".")[0] for item in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            origin |= {item.asname or item.name: f"{node.module}.{item.name}" for item in node.names}
    for node in ast.walk(tree):
        line = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute | ast.Name):
            name = dotted(node)
            first, _, rest = name.partition(".")
            full = origin.get(first, first) + (f".{rest}" if rest else "")
            if (name in NEVER or full in NEVER) and not (path in UNPICKLES and "_Unpickler" in full):
                yield f"{line}: {full}"
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        first, _, rest = name.partition(".")
        full = origin.get(first, first) + (f".{rest}" if rest else "")
        last = full.rpartition(".")[2]
        words = {word.arg: word.value for word in node.keywords}
        if full in BUILT_IN:
            yield f"{line}: {full}()"
        if isinstance(node.func, ast.Attribute) and node.func.attr in NEVER_METHODS:
            yield f"{line}: .{node.func.attr}()"
        if "shell" in words:
            yield f"{line}: shell="
        pickles = words.get("allow_pickle")
        if pickles is not None and not (isinstance(pickles, ast.Constant) and pickles.value is False):
            yield f"{line}: allow_pickle"
        if full in ("numpy.load", "np.load") and pickles is None:
            yield f"{line}: numpy.load without allow_pickle=False"
        if full.startswith("subprocess.") and last in PROCESSES and node.args:
            command = node.args[0]
            if isinstance(command, ast.JoinedStr | ast.BinOp) or (
                isinstance(command, ast.Constant) and isinstance(command.value, str)
            ):
                yield f"{line}: subprocess with one text as its command"
        if words.get("trust_remote_code") is not None and not (
            isinstance(words["trust_remote_code"], ast.Constant) and words["trust_remote_code"].value is False
        ):
            yield f"{line}: trust_remote_code"
        if last in ("bind", "serve_forever", "HTTPServer", "TCPServer", "run_simple", "create_server"):
            yield f"{line}: opens a port"


def test_no_code_of_the_project_does_it() -> None:
    assert len(CODE) > 100
    found = [line for file in CODE for line in problems(file.read_text(), str(file.relative_to(ROOT)))]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "exec(text)",
        "compile(a, b, 'exec')",
        "__import__(name)",
        "import pickle\npickle.load(f)",
        "import pickle as p\np.loads(b)",
        "from pickle import loads\nloads(b)",
        "from pickle import loads as read\nread(b)",
        "import pickle\nclass A(pickle.Unpickler): pass",
        "import torch\ntorch.load(f, weights_only=True)",
        "import numpy as np\nnp.load(f)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy\nnumpy.load(f, allow_pickle=allow)",
        "import pandas as pd\npd.read_pickle(f)",
        "frame.read_pickle(f)",
        "import yaml\nyaml.load(f)",
        "import os\nos.system(c)",
        "from os import popen\npopen(c)",
        "import subprocess\nsubprocess.run(c, shell=True)",
        "import subprocess\nsubprocess.run(f'git {x}')",
        "import subprocess\nsubprocess.check_output('git log')",
        "import subprocess as s\ns.Popen('a' + b)",
        "archive.extractall(folder)",
        "import tarfile\ntarfile.open(f)",
        "from transformers import AutoModel\nAutoModel.from_pretrained(x, trust_remote_code=True)",
        "socket.bind(('0.0.0.0', 1))",
    ],
)
def test_the_check_finds(source: str) -> None:
    assert list(problems(source))


@pytest.mark.parametrize(
    "source",
    [
        "module.eval()",
        "import re\nre.compile(x)",
        "import numpy as np\nnp.load(f, allow_pickle=False)",
        "import subprocess\nsubprocess.run(['git', x])",
        "import json\njson.load(f)",
        "AutoModel.from_pretrained(x, trust_remote_code=False)",
    ],
)
def test_the_check_leaves_alone(source: str) -> None:
    assert list(problems(source)) == []
