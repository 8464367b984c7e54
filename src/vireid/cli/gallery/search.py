"""`vireid gallery search`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console
from vireid.data.errors import BadInput

if TYPE_CHECKING:
    from vireid.gallery.lookup import Found
    from vireid.gallery.search import Match

MISSING = "–"


def register(nouns: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = nouns.add_parser(
        "search",
        help="find a person in an index",
        description="Find the person of a picture among the pictures of both modalities. Several pictures must show "
        "one person, in one modality; they are searched for together.",
        epilog="Times are ISO 8601, such as 2026-03-01 or 2026-03-01T14:30:00+01:00 (UTC without a zone), or how long "
        "ago: 30m, 2h, 7d, 4w. A match is no proof of identity.",
    )
    verb.add_argument("index", metavar="INDEX", help="a folder, or milvus://host:port/name")
    verb.add_argument("pictures", metavar="PICTURE", nargs="*", type=Path, help="pictures of one person")
    verb.add_argument("--from-match", metavar="ID", help="search on from this picture of the gallery")
    verb.add_argument(
        "--modality", metavar="M", help="of the pictures: visible or infrared (default: by their colours)"
    )
    verb.add_argument("--search-in", metavar="M", help="search visible or infrared pictures only")
    verb.add_argument("--top", type=console.count, default=20, metavar="N", help="most matches (default 20)")
    verb.add_argument("--start", type=console.count, default=0, metavar="N", help="pass over the first N matches")
    for name, what in (("camera", "cameras"), ("source", "sources"), ("tracklet", "tracklets")):
        verb.add_argument(
            f"--{name}", nargs="+", action="extend", default=[], metavar="NAME", help=f"only pictures of these {what}"
        )
    verb.add_argument("--since", metavar="TIME", help="only pictures from this time on")
    verb.add_argument("--until", metavar="TIME", help="only pictures before this time")
    verb.add_argument("--fmr", type=_number, metavar="RATE", help="mark matches up to this false match rate")
    verb.add_argument(
        "--strangers", type=_number, metavar="N", help="a match is likely up to N expected strangers (default 0.05)"
    )
    verb.add_argument("--model", type=Path, metavar="RUN", help="where the index's model is now")
    verb.add_argument("--state", type=Path, metavar="DIR", help="the private folder of an index in Milvus")
    console.add_output(verb, "--sheet", "write a contact sheet, .png, .jpg or .html")
    console.add_json(verb, "write the answer as JSON")
    verb.set_defaults(verb_function=run_search)


def run_search(options: argparse.Namespace) -> None:
    """Search, and print the verdict and the matches."""
    from vireid.gallery.lookup import SearchOptions, look_up

    names = ("index", "from_match", "modality", "search_in", "top", "start", "since", "until", "fmr", "model", "state")
    given = {name: getattr(options, name) for name in (*names, "sheet")}
    if options.strangers is not None:
        given["strangers"] = options.strangers
    for name in ("pictures", "camera", "source", "tracklet"):
        given[name if name == "pictures" else f"{name}s"] = tuple(getattr(options, name))
    found = look_up(SearchOptions(**given))
    print("\n".join(_lines(found)))
    if options.sheet:
        print(f"contact sheet: {options.sheet}")
    console.write_json(options.json, {**found.to_json(), "index": options.index, "command": console.command()})


def _lines(found: Found) -> list[str]:
    """The verdict, what was searched, and the matches."""
    from vireid.gallery.search import as_values

    answer = found.answer
    counts = " and ".join(f"{pictures:,} {one.word}" for one, pictures in answer.searched.items())
    guessed = " (guessed from the colours; --modality sets it)" if found.guessed else ""
    words = as_values(answer)["words"]
    verdict = words if answer.verdict is None else f"{answer.verdict.state}: {words}"
    lines = [verdict, f"query: {answer.query.word}{guessed}; searched: {counts} pictures"]
    for modality, threshold in found.thresholds.items():
        what = f"{modality.word} pictures, false match rate {found.fmr:g}:"
        if threshold is None:
            lines.append(f"{what} the calibration cannot tell, it has too few pairs")
        else:
            lines.append(
                f"{what} cosine {threshold.cosine:.3f} ({threshold.lower:.3f} to {threshold.upper:.3f}), marked *"
            )
    judged = [match for match in answer.matches if match.ratio is not None]
    lists = [judged] if judged else []
    others = [match for match in answer.matches if match.ratio is None]
    for modality in dict.fromkeys(match.row.modality for match in others):
        lists.append([match for match in others if match.row.modality == modality])
    for one in lists:
        title = [] if len(lists) == 1 or one is judged else [f"{one[0].row.modality.word} pictures, by cosine:"]
        lines += ["", *title, _table(found, one)]
    if answer.next is not None:
        lines += ["", f"more: --start {answer.next}"]
    return lines


def _table(found: Found, matches: Sequence[Match]) -> str:
    from vireid.gallery.times import time_text
    from vireid.gallery.words import count_text, plain

    lines = []
    for match in matches:
        row, mark = match.row, "*" if found.reaches(match.row.modality, match.cosine) else " "
        ratio = MISSING if match.ratio is None else f"{match.ratio:.2f}"
        expected = MISSING if match.strangers is None else count_text(match.strangers.estimate)
        numbers = (f"{match.cosine:6.3f}{mark}", f"{ratio:>6}", f"{expected:>9}")
        time = (time_text(row.time) or MISSING).replace("T", " ")
        lines.append(
            (f"{match.rank:>4}", row.modality.word, plain(row.camera), time, *numbers, plain(row.path), row.id)
        )
    head = ("rank", "modality", "camera", "time", "cosine", " ratio", "strangers", "path", "id")
    return console.table(head, lines, left=len(head))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"'{text}' is not a number") from None
