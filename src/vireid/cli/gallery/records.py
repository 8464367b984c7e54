"""`vireid gallery records`."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(nouns: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = nouns.add_parser(
        "records",
        help="who searched, and what was said of matches, as files",
        description="Write what vireid gallery serve has kept on this machine: the audit log, and the feedback of the "
        "page. The files are private (mode 0600).",
        epilog="Times are ISO 8601, such as 2026-03-01T14:30 (UTC without a zone), or how long ago: 2h, 7d.",
    )
    verb.add_argument("index", metavar="INDEX", help="a folder, or milvus://host:port/name")
    verb.add_argument("--audit", type=Path, metavar="FILE", help="write the audit log, .csv or .jsonl")
    verb.add_argument("--who", metavar="NAME", help="only searches with this token's name")
    verb.add_argument("--since", metavar="TIME", help="only searches from this time on")
    verb.add_argument("--until", metavar="TIME", help="only searches before this time")
    verb.add_argument("--feedback", type=Path, metavar="FILE", help="write the feedback, .csv")
    verb.add_argument("--state", type=Path, metavar="DIR", help="the private folder of an index in Milvus")
    verb.set_defaults(verb_function=run_records)


def run_records(options: argparse.Namespace) -> None:
    """Write the files, and say how much is in them."""
    from vireid.gallery.service.records import RecordsOptions, write_records

    names = ("index", "audit", "feedback", "who", "since", "until", "state")
    found = write_records(RecordsOptions(**{name: getattr(options, name) for name in names}))
    if found.audit is not None:
        print(f"{options.audit}: {found.audit:,} searches")
    if found.feedback is not None:
        print(f"{options.feedback}: {found.feedback:,} verdicts")
