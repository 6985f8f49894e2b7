"""`pythia-tools COMMAND …`: finds the command's module, runs it, and turns errors into one line and an exit code.

A command module has `configure(parser)` and `run(args)`, which returns the exit code, or None when all is done, and a
docstring whose first line is its help and whose remainder holds an example. --json and --quiet are every command's.
Commands load lazily, so `pythia-tools --help` needs no torch.
"""

import argparse
import importlib
import inspect
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, NoReturn

from pythia_tools import analyses
from pythia_tools.core import errors, progress

COMMANDS = {
    "demo": "the whole study on pythia-micro, from training to report.html",
    "study": "all analyses over a suite, and one report",
    "suites": "list suites; show one: models, steps, sizes, known defects",
    "download": "fetch checkpoints: resumable, parallel, verified",
    "doctor": "audit a suite's integrity",
    "train": "train a small suite with checkpoints",
    "data": "ordered training data: batch, seen, tokenize, build-order, verify, overlay",
    "dedup": "near-duplicate clusters of documents, kept and dropped",
    "count": "exposures of terms and pairs up to each step",
    "published": "public results, read as a run",
    "fit": "scaling laws, ladders, phases, seeds on any summary or CSV",
    "verify": "published numbers against a fresh run, or against themselves",
    "report": "a self-contained HTML report of finished runs",
    "rerun": "repeat a run from what it recorded",
    "merge": "join the shards of a run",
    "selfcheck": "versions, devices, manifests; --online: one real checkpoint, one real batch",
}


class Command(NamedTuple):
    """What a command is: its help (first line, then examples), its flags, and what it does."""

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]

    def parser(self, name: str) -> argparse.ArgumentParser:
        """The parser of its arguments, which says `name` in its help."""
        from pythia_tools.cli.options import add

        summary, _, example = self.help.strip().partition("\n")
        parser = _Parser(
            prog=f"pythia-tools {name}", description=summary, epilog=example.strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        )
        self.configure(parser)
        if name != "data":  # it only hands over to its own commands
            add(parser, "--json", "--quiet")
        return parser

    def execute(self, name: str, arguments: Sequence[str]) -> int:
        """Parse the arguments and run; returns the exit code."""
        typed = shlex.join(["pythia-tools", *name.split(), *arguments])
        args = self.parser(name).parse_args(arguments, argparse.Namespace(typed=typed))
        progress.set_quiet(getattr(args, "quiet", False))
        if getattr(args, "budget", None) is None:
            return self.run(args) or errors.EXIT_DONE
        from pythia_tools import hub

        hub.set_budget(args.budget)
        try:
            return self.run(args) or errors.EXIT_DONE
        finally:
            hub.set_budget(None)


class _Parser(argparse.ArgumentParser):
    """Errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise errors.RequestError(f"{self.prog}: {message}; see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code of the contract (0, 1, 2, 3, 70, 130)."""
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except errors.PythiaToolsError as error:
        _say(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted; what was finished is kept, run the same command again to resume")
        return errors.EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.EXIT_DONE
    except Exception as error:  # whatever else escapes, the user gets an exit code of the contract
        if failure := errors.refused(error):
            _say(str(failure))
            return errors.EXIT_ENVIRONMENT
        traceback.print_exc()
        _say("this is a bug of pythia-tools, please report it with the lines above")
        return errors.EXIT_BUG


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return errors.EXIT_DONE
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"pythia-tools {version('pythia-tools')}")
        return errors.EXIT_DONE
    return find(arguments[0]).execute(arguments[0], arguments[1:])


def find(name: str) -> Command:
    """A command of this package, or the one that an analysis declares. Raises UnknownNameError."""
    if name in COMMANDS:
        return of_module(name)
    if name not in analyses.names():
        raise errors.unknown("command", name, [*COMMANDS, *analyses.names()])
    from pythia_tools.cli import analyses as doors

    analysis = analyses.get(name)
    configure, run = partial(doors.configure, analysis=analysis), partial(doors.run_command, analysis=analysis)
    return Command(inspect.getdoc(type(analysis)) or name, configure, run)


def of_module(name: str) -> Command:
    """The command that the module of this name (`data batch`: data_batch) holds."""
    module = importlib.import_module(f"pythia_tools.cli.{name.replace('-', '_').replace(' ', '_')}")
    return Command(module.__doc__ or "", module.configure, module.run)


def _overview() -> str:
    known = {**COMMANDS, **analyses.names()}
    width = max(map(len, known))
    return "\n".join([
        "usage: pythia-tools COMMAND [options]",
        "",
        "When and why did a language model learn something? One toolkit, from checkpoints and",
        "training order to memorization, term frequency and bias over sizes and steps.",
        "",
        *(f"  {name:{width}}  {what}" for name, what in known.items()),
        "",
        "`pythia-tools COMMAND --help` shows options and an example. Start with: pythia-tools demo",
    ])


def _say(message: str) -> None:
    """One line on stderr."""
    print("pythia-tools: " + " ".join(message.split()), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
