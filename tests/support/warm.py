"""Calls of ``bench.py`` without the seconds of its imports: a process that has imported everything
and forks one child a call. The child is a process of its own, in a group of its own, and can be
killed like any other; it never shares a thread or an open file with its parent.

``Warm`` is the client; run as a script, this file is the server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONPATH": str(ROOT / "tests" / "support"),
    "COLUMNS": "160",
}
_IMPORTED = (
    *(
        "torch",
        "torch._dynamo",
        "pandas",
        "pyarrow.parquet",
        "safetensors.torch",
        "tabulate",
        "rich.progress",
    ),
    *("imer_bench.harness.cli.run", "imer_bench.harness.engine.run", "imer_bench.harness.report"),
    *(
        "imer_bench.harness.report",
        "imer_bench.harness.leaderboard.report",
        "imer_bench.harness.corpus.importers",
    ),
)
# Seconds more, for studies and MLflow.
SERVICES = (
    *("optuna", "optuna.samplers._tpe.sampler", "mlflow", "mlflow.tracking", "sqlalchemy.dialects.sqlite"),
    *("mlflow.store.tracking.sqlalchemy_store", "alembic.command", "imer_bench.harness.tracking"),
    *("imer_bench.harness.cli.tune", "imer_bench.harness.studies.objective"),
)


@dataclass
class Call:
    """A call that runs.

    Attributes:
        pid: Process id, which is also that of its group.
        output: File of what it prints.
        errors: File of its messages.
    """

    pid: int
    output: Path
    errors: Path

    @property
    def text(self) -> str:
        """What it has printed, messages last."""
        return "".join(
            path.read_text(encoding="utf-8", errors="replace") for path in (self.output, self.errors)
        )


class Warm:
    """A server of calls; a context manager.

    Args:
        more: Modules that it imports beside those of every call.
    """

    def __init__(self, more: Sequence[str] = ()) -> None:
        self._more = more

    def __enter__(self) -> Warm:
        self._server = subprocess.Popen(
            [sys.executable, __file__, *self._more],
            env={**os.environ, **_SETTINGS},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()

    def start(self, folder: Path, arguments: Sequence[object], environment: Mapping[str, str]) -> Call:
        """Starts ``bench.py ARGUMENTS`` in a folder."""
        output, errors = (folder.with_name(f"{folder.name}.{stream}") for stream in ("output", "errors"))
        self._send(
            {
                "arguments": [str(item) for item in arguments],
                "folder": str(folder),
                "environment": dict(environment),
                "streams": [os.devnull, str(output), str(errors)],
            }
        )
        return Call(self._receive()["pid"], output, errors)

    def wait(self) -> int:
        """Exit code of the last call; negative: the signal that ended it."""
        return self._receive()["code"]

    def _send(self, value: object) -> None:
        assert self._server.stdin
        self._server.stdin.write(json.dumps(value) + "\n")
        self._server.stdin.flush()

    def _receive(self) -> dict[str, int]:
        assert self._server.stdout
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError("the server of calls has ended")
        return json.loads(line)


@cache
def server() -> Warm:
    """The one server of this process."""
    return Warm().__enter__()  # ends when this process does: its input is closed then


def bench(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Calls ``bench.py ARGUMENTS`` in a folder, as ``subprocess.run`` would; no MLflow, no report."""
    quiet = {"IMER_NO_MLFLOW": "1", "IMER_NO_REPORT": "1", "COLUMNS": "120"}
    call = server().start(folder, arguments, {**quiet, **environment})
    code = server().wait()
    return subprocess.CompletedProcess(
        list(arguments), code, call.output.read_text(), call.errors.read_text()
    )


def _serve() -> None:
    import importlib

    sys.path.insert(0, str(ROOT))
    for name in (*_IMPORTED, *sys.argv[1:]):
        importlib.import_module(name)
    # Our folder `datasets` must not hide Hugging Face's library, as in bench.py.
    sys.path[:] = [entry for entry in sys.path if entry != str(ROOT)]
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _call(request)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _call(request: dict) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        for stream, path in enumerate(request["streams"]):
            how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if stream else os.O_RDONLY
            os.dup2(os.open(path, how), stream)
        sys.argv = ["bench.py", *request["arguments"]]
        from imer_bench.harness.cli import main

        code = main(request["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
