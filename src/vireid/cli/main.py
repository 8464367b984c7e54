"""The program `vireid`: finds the verb, runs it, and turns a user's mistake into one sentence and exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from vireid.cli import (
    bench,
    console,
    data,
    demo,
    embed,
    evaluate,
    export,
    figures,
    gallery,
    settings,
    sweep,
    tables,
    train,
)
from vireid.data import output
from vireid.data.errors import BadInput, unknown

GROUPS = (demo, data, train, sweep, settings, evaluate, embed, export, gallery, bench, figures, tables)
# What torchrun and accelerate tell a process of the others, as far as torch and accelerate read it.
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
# How `vireid --help` groups the verbs.
SECTIONS = {
    "start": ("demo", "data"),
    "train": ("train", "sweep", "folds", "fields", "cost"),
    "measure": ("test", "score", "report", "figures"),
    "use": ("embed", "export", "gallery", "bench"),
    "papers": ("rows", "reproduce"),
}


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one sentence that names the choices, and options are never abbreviated."""

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        found, rest = super().parse_known_args(args, namespace)
        if strange := [word.partition("=")[0] for word in rest if word.startswith("--") and len(word) > 2]:
            own = [option for option in self._option_string_actions if option.startswith("--")]
            raise unknown(f"option of {self.prog}", strange[0], own)
        return found, rest

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message.rstrip('.')}; '{self.prog} --help' lists what it takes")

    def _get_value(self, action: argparse.Action, arg_string: str) -> object:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            # argparse drops the message of the function that reads the value. Our messages say what to write instead.
            if isinstance(error.__context__, BadInput):
                raise BadInput(f"{'/'.join(action.option_strings) or action.metavar}: {error.__context__}") from None
            raise

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            kind = "/".join(action.option_strings).lstrip("-") or str(action.metavar or action.dest)
            raise unknown(kind.lower(), str(value), [str(choice) for choice in action.choices])


def parser() -> argparse.ArgumentParser:
    """The whole command line. Building it imports nothing heavy: `vireid --help` answers at once."""
    top = _Parser(
        prog="vireid",
        description="Visible-infrared person re-identification: train, evaluate, report.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser, help=argparse.SUPPRESS)
    for group in GROUPS:
        group.register(verbs)
    _add_plugin(top)
    top.usage = "vireid [-h] [--version] VERB ..."
    top.epilog = _grouped({action.dest: action.help or "" for action in verbs._choices_actions})
    return top


def _add_plugin(parser: argparse.ArgumentParser) -> None:
    """Add `--plugin FILE.py` to a parser and to those of its verbs. `_load_plugins` has done what it asks for."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="also use the recipe, data set, protocols or augmentations of this file (it is executed); repeatable",
    )
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for verb in {id(one): one for action in below for one in action.choices.values()}.values():
        _add_plugin(verb)


def _load_plugins(arguments: Sequence[str]) -> None:
    """Load the plug-ins before anything else is read, because other options and `--help` may name what they hold."""
    words = iter(arguments)
    files = []
    for word in words:
        if word == "--":
            break
        if word == "--plugin":
            files.append(next(words, ""))
        elif word.startswith("--plugin="):
            files.append(word.partition("=")[2])
    files = [file for file in files if file and not file.startswith("-")]  # the parser explains what is missing
    if files:
        from vireid.plugins import plugin

        for file in files:
            plugin(file)


def _grouped(helps: dict[str, str]) -> str:
    """The verbs with what they do, section by section."""
    names = {name.partition(" ")[0]: text for name, text in helps.items()}
    lines = []
    for section, verbs in SECTIONS.items():
        lines += [f"{section}:", *(f"  {verb:12}{names[verb]}" for verb in verbs), ""]
    return "\n".join([*lines, "Each verb has its own --help."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when done, 2 for a user's mistake or a full disk (one sentence on standard error), 130 when interrupted.
        Anything else that is raised is our mistake: Python prints its traceback and exits with 1.
    """
    # Idle threads sleep instead of spinning. Where other work shares the cores (a loader's workers are enough), torch's
    # spinning OpenMP threads take the time that the working one needs: a training step was measured 7 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console.remember(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(parser(), arguments)
    except SystemExit as end:  # argparse ends the program after --help
        raise SystemExit(output.finish(end.code if isinstance(end.code, int) else 0)) from None
    except OSError as error:
        return output.failed(error)
    return output.finish(code)


def _takes_part(options: argparse.Namespace) -> bool:
    """Whether this process has work to do. Of the processes that a launcher started, most verbs use only the first.

    That one then forgets the variables of the launcher, so that it works as if it had been started alone.
    """
    processes, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    if getattr(options, "all_processes", False) or processes == "1":
        return True
    for name in LAUNCHER:
        os.environ.pop(name, None)
    if rank == "0":
        print(f"vireid: {processes} processes were started; this verb uses one of them", file=sys.stderr)
    return rank == "0"


def _run(top: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run one command and return its exit code; what it printed may still be in Python's buffer."""
    try:
        _load_plugins(sys.argv[1:] if arguments is None else arguments)
        options = top.parse_args(arguments)
        if options.version:
            from importlib.metadata import version

            print(f"vireid {version('vireid')}")
        elif options.verb is None:
            top.print_help()
        elif _takes_part(options):
            options.verb_function(options)
    except BadInput as mistake:
        return output.complain(str(mistake), 2)
    except KeyboardInterrupt:
        return output.complain("interrupted; what was saved is kept", 130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
