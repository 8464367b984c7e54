"""`vireid gallery serve`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from vireid.data.errors import BadInput


def register(nouns: argparse._SubParsersAction) -> None:
    """Add the verb."""
    what = "Serve an index over HTTP, with a page for people. It needs pip install 'vireid[serve]'."
    verb = nouns.add_parser("serve", help="serve an index over HTTP, with a page for people", description=what)
    verb.add_argument("index", metavar="INDEX", help="a folder, or milvus://host:port/name")
    verb.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    verb.add_argument("--port", type=_port, default=8000, help="default 8000; 0 for a free one")
    verb.add_argument("--model", type=Path, metavar="PATH", help="where the model is now, if it was moved")
    verb.add_argument("--state", type=Path, metavar="DIR", help="private folder, for an index in Milvus")
    who = verb.add_argument_group("who may search")
    who.add_argument("--tokens", type=Path, metavar="FILE", help="named tokens; needed beyond this machine")
    who.add_argument("--new-token", metavar="NAME", help="add a token to the file, print it, and end")
    who.add_argument("--remove-token", metavar="NAME", help="remove a token from the file, and end")
    who.add_argument("--no-token", action="store_true", help="everybody on this machine may search")
    who.add_argument("--allow-host", nargs="+", action="extend", default=[], metavar="NAME", help=_ALLOW)
    who.add_argument("--rate", type=float, default=5, metavar="N", help="searches a second of each token (default 5)")
    who.add_argument("--require-reason", action="store_true", help="a search must say why it is made")
    verb.add_argument("--strangers", type=float, default=0.05, metavar="N", help=_STRANGERS)
    keep = verb.add_argument_group("what is kept")
    keep.add_argument("--keep-audit", type=days, default=90.0, metavar="90d", help="entries of the audit log")
    keep.add_argument("--keep-rows", type=days, metavar="30d", help="pictures that have a time; else they are kept")
    verb.add_argument("--page", action=argparse.BooleanOptionalAction, default=True, help="serve the page too")
    verb.set_defaults(verb_function=_serve)


_STRANGERS = "a match is likely if at most so many strangers are expected (default 0.05)"
_ALLOW = "more names of this host, as they stand in the address that people type"


def days(text: str) -> float:
    """A time span such as `90d`, `12h` or `2w`, in days.

    >>> days("90d"), days("12h"), days("2w")
    (90.0, 0.5, 14.0)
    """
    found = re.fullmatch(r"([0-9]{1,5})([hdw])", text)
    if found is None or int(found[1]) == 0:
        raise BadInput(f"'{text}' is no time span: write a number above 0 and h, d or w, such as 90d")
    return int(found[1]) * {"h": 1 / 24, "d": 1.0, "w": 7.0}[found[2]]


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise BadInput(f"'{text}' is no port: a whole number from 0 to 65535")
    return int(text)


def _serve(options: argparse.Namespace) -> None:
    from vireid.gallery.service.server import ServeOptions, serve

    if options.new_token is not None or options.remove_token is not None:
        _change_tokens(options)
        return
    given = {name: value for name, value in vars(options).items() if name in ServeOptions.__dataclass_fields__}
    serve(ServeOptions(**given), say=lambda text: print(text, flush=True))


def _change_tokens(options: argparse.Namespace) -> None:
    from vireid.gallery.service.access import Tokens, remove_token

    if options.tokens is None:
        raise BadInput("--new-token and --remove-token change a file of tokens: name the file with --tokens")
    if options.remove_token is not None:
        remove_token(options.tokens, options.remove_token)
        print(f"{options.remove_token} has no token any more")
    if options.new_token is not None:
        _, text = Tokens.make(options.tokens, options.new_token)
        print(f"The token of {options.new_token}, which is shown only now:\n{text}")
