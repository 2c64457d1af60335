"""The command line: one module a command, imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

# Command -> (module, what it does). A module offers add_arguments(parser) and run(args) -> int.
COMMANDS = {
    "run": (".run", "run a protocol and print its leaderboard (the default command)"),
    "plan": (".plan", "show what a protocol would run, without training"),
    "tune": (".tune", "search for hyper-parameters on validation data, with an equal budget"),
    "leaderboard": (".leaderboard", "make the tables of a protocol or results folder again"),
    "compare": (".compare", "test two methods, or two results folders, against each other"),
    "audit": (".audit", "measure the error rates of the tests behind the tables"),
    "verify": (".verify", "check stored results: files, masks, metrics, tables, versions"),
    "data": ("..corpus.commands", "import, list, show and verify data sets"),
    "methods": (".methods", "list the methods, or show the record of one"),
    "datasets": (".datasets", "list the known data sets and where they are"),
    "mlflow": ("..tracking", "bring results to MLflow (mlflow sync)"),
    "parity": ("..parity.command", "prove methods equal to their authors' code on golden cases"),
    "doctor": (".doctor", "check environment, device, data and versions"),
}

EXAMPLES = """\
examples:
  python bench.py --protocol protocols/quickstart.toml
  python bench.py plan --protocol protocols/mosi_missing.toml
  python bench.py --protocol protocols/mosi_missing.toml --methods momke,gcnet --seeds 1,2,3
  python bench.py data import --format auto SOURCE --name cmu_mosi
  python bench.py tune --protocol protocols/mosi_missing.toml --method ad_mcpd --trials 50
  mlflow ui
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Arguments; those of the process if ``None``.

    Returns:
        Exit code: 0 done, 1 the input or some run failed, 2 wrong usage, 130 interrupted, 143
        terminated (as a cluster does before it takes a machine away).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "--version"):
        return _overview(arguments)
    if arguments[0].startswith("-"):
        arguments.insert(0, "run")
    name, *rest = arguments
    if name not in COMMANDS:
        from ..errors import UnknownName

        print(f"bench.py: {UnknownName('command', name, COMMANDS)}", file=sys.stderr)
        return 2
    module, summary = COMMANDS[name]
    command = importlib.import_module(module, __package__)
    parser = argparse.ArgumentParser(
        prog=f"bench.py {name}", description=f"{summary[0].upper()}{summary[1:]}."
    )
    command.add_arguments(parser)
    return _guarded(command.run, parser.parse_args(rest))


def _guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    from ..errors import UserError
    from ..signals import Terminated, termination_interrupts
    from ..terminal import plain_output, printable

    try:
        with plain_output(), termination_interrupts():
            return run(args)
    except UserError as error:
        print(f"bench.py: {printable(error)}", file=sys.stderr)
        return 1
    except Terminated:
        print("terminated; the same command continues where it stopped", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:  # a folder that is full, read-only or gone; the message names the file
        print(f"bench.py: {error}", file=sys.stderr)
        return 1


def _overview(arguments: Sequence[str]) -> int:
    if "--version" in arguments:
        from importlib.metadata import version

        print(f"IMER-Bench {version('imer-bench')}")
        return 0
    lines = [
        "usage: bench.py [command] [options]      (bench.py --protocol FILE is bench.py run --protocol FILE)",
        "",
        "IMER-Bench: one comparison of methods for incomplete multimodal emotion recognition that can be",
        "trusted: same data, same masks, same budget, same selection rule, declared in one protocol file.",
        "",
        "commands:",
        *(f"  {name:<12} {summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "options of a command: bench.py COMMAND --help",
        "",
        EXAMPLES,
    ]
    print("\n".join(lines), end="")
    return 0 if arguments else 2
