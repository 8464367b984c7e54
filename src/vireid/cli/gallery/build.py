"""`vireid gallery build, info and prune`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console

if TYPE_CHECKING:
    from vireid.gallery.build import Built
    from vireid.gallery.info import Info
    from vireid.gallery.prune import Pruned

LISTED = 20  # unreadable pictures that are named in the terminal; --json has all of them


def register(nouns: argparse._SubParsersAction) -> None:
    """Add the verbs."""
    _register_build(nouns)
    _register_info(nouns)
    _register_prune(nouns)


def add_index(verb: argparse.ArgumentParser) -> None:
    """The argument INDEX and the option `--state`."""
    verb.add_argument("index", metavar="INDEX", help="a folder, or milvus://host:port/name")
    verb.add_argument(
        "--state", type=Path, metavar="DIR", help="folder of this machine for the journal of an index in Milvus"
    )


def _register_build(nouns: argparse._SubParsersAction) -> None:
    verb = nouns.add_parser(
        "build",
        help="make an index of pictures, or bring it up to date",
        description="Embed the pictures of folders and tables, and store their vectors. Called again, it reads only "
        "what is new or changed, and goes on where it was stopped.",
    )
    add_index(verb)
    verb.add_argument("--model", type=Path, required=True, metavar="RUN|EXPORT", help="a run, or an exported model")
    verb.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a folder with the folders visible and infrared; a folder of one modality (--modality); a table (CSV) "
        "with path, camera, modality and optionally time, tracklet, person; or LAYOUT:PATH for its test pictures",
    )
    verb.add_argument("--modality", metavar="M", help="visible or infrared, for pictures that have none")
    verb.add_argument(
        "--camera",
        metavar="NAME",
        help="camera of pictures that have none in a table, and of those of folders; without it, a folder's first "
        "folders are its cameras",
    )
    verb.add_argument(
        "--name", help="name of the source (default: its absolute path); keep it when the pictures are moved"
    )
    verb.add_argument("--checkpoint", choices=("last", "best"), default="last", help="last (default) or best")
    verb.add_argument("--batch", type=console.count, default=64, metavar="N", help="pictures at once (default 64)")
    verb.add_argument("--workers", type=console.count, default=2, metavar="N", help="loading processes (default 2)")
    console.add_json(verb, "write what was done as JSON")
    verb.set_defaults(verb_function=run_build, all_processes=True)


def run_build(options: argparse.Namespace) -> None:
    """Build, and say what was done and what could not be read."""
    from vireid.data.stored import as_json
    from vireid.gallery.build import BuildOptions, build
    from vireid.training import distributed
    from vireid.training.progress import Terminal

    names = ("index", "model", "modality", "camera", "name", "checkpoint", "batch", "workers", "state")
    given = {name: getattr(options, name) for name in names}
    found = build(BuildOptions(sources=tuple(options.sources), **given), Terminal())
    if distributed.begin().is_main_process:
        print("\n".join(built_lines(options.index, found)))
        console.write_json(options.json, {"index": options.index, **as_json(found)})


def built_lines(index: str, found: Built) -> list[str]:
    """What is printed of a build."""
    said = [
        f"{index}: {found.visible:,} visible and {found.infrared:,} infrared pictures",
        f"{found.listed:,} listed: {found.embedded:,} embedded, {found.unchanged:,} unchanged ({found.seconds:,.0f} s)",
    ]
    if found.updated:
        said.append(f"{found.updated:,} rows got another camera, time, tracklet or person")
    if found.duplicates:
        have = "has" if found.duplicates == 1 else "have"
        said.append(f"{found.duplicates:,} of the embedded pictures {have} the same bytes as another one")
    reasons = [(f"{source}/{path}", why) for source, some in found.unreadable.items() for path, why in some.items()]
    if reasons:
        again = "is tried again when it changes" if len(reasons) == 1 else "are tried again when they change"
        said.append(f"{pictures(len(reasons))} cannot be read, and {again}:")
        said += [f"  {path}: {why}" for path, why in reasons[:LISTED]]
    if len(reasons) > LISTED:
        said.append(f"  … and {len(reasons) - LISTED:,} more, see --json")
    for source, many in found.gone.items():
        are = "is" if many == 1 else "are"
        said.append(f"{pictures(many)} of {source} {are} not there any more: vireid gallery prune {index} --gone")
    return said


# --- info -------------------------------------------------------------------------------------------------------------


def _register_info(nouns: argparse._SubParsersAction) -> None:
    verb = nouns.add_parser("info", help="what an index holds", description="What an index holds, and of which model.")
    add_index(verb)
    console.add_json(verb, "write it as JSON")
    verb.set_defaults(verb_function=run_info)


def run_info(options: argparse.Namespace) -> None:
    """Print what an index holds."""
    from vireid.data.stored import as_json
    from vireid.gallery.info import info
    from vireid.training.progress import Terminal

    found = info(options.index, state=options.state, progress=Terminal())
    print("\n".join(info_lines(found)))
    console.write_json(options.json, as_json(found))


def info_lines(found: Info) -> list[str]:
    """What is printed of an index."""
    model = found.model
    said = [
        f"{found.index}: {found.visible:,} visible and {found.infrared:,} infrared pictures",
        f"model {model.name}, {model.runtime or 'PyTorch'}, {model.width:,} numbers, fingerprint "
        f"{model.fingerprint[:16]}, from {model.path}",
    ]
    if found.calibration is None:
        said.append(f"not calibrated: vireid gallery calibrate {model.path} --data LAYOUT:PATH")
    else:
        said.append(f"calibrated with {found.calibration.people:,} people of {found.calibration.data}")
        said += [f"  {one}" for one in found.calibration.warnings]
    times = f"taken {found.first} to {found.last}" if found.first else "no picture has a time"
    without = f"; {found.without_time:,} without a time" if found.first and found.without_time else ""
    size = "" if found.bytes is None else f"; {found.bytes / 1e6:,.1f} MB on disk"
    said.append(f"{times}{without}{size}")
    if found.duplicates:
        have = "has" if found.duplicates == 1 else "have"
        said.append(f"{pictures(found.duplicates)} {have} the same bytes as another one")
    if found.dead:
        said.append(f"{found.dead:,} vectors of deleted or replaced pictures are in the files: prune removes them")
    if found.recall is not None:
        share = "recall not measured: it takes 21 to 200,000 pictures of a modality"
        if found.recall.share is not None:
            share = (
                f"finds {found.recall.share:.1%} of the 20 nearest ({found.recall.queries} stored pictures as queries)"
            )
        said.append(f"index {found.recall.index}, approximate: {share}")
    if found.cameras:
        rows = [(one.camera, f"{one.visible:,}", f"{one.infrared:,}") for one in found.cameras]
        said.append(console.table(("camera", "visible", "infrared"), rows))
    if found.sources:
        rows = [(one.name, one.built or "not here", f"{one.rows:,}", f"{one.unreadable:,}") for one in found.sources]
        said.append(console.table(("source", "built", "pictures", "unreadable"), rows, left=2))
    return said


# --- prune ------------------------------------------------------------------------------------------------------------


def _register_prune(nouns: argparse._SubParsersAction) -> None:
    verb = nouns.add_parser(
        "prune",
        help="remove pictures from an index for good",
        description="Remove rows, vectors, thumbnails, what the journal knows and what people said of them, so that no "
        "byte of them is left in the index. A row is removed if all that is given holds for it. The pictures "
        "themselves are not touched, and come back with the next build if they are still in a source.",
    )
    add_index(verb)
    verb.add_argument("--gone", action="store_true", help="pictures that are not in their source any more")
    verb.add_argument("--older-than", metavar="TIME", help="taken before this: 30d, 12h, or 2026-03-01")
    verb.add_argument("--source", metavar="NAME", help="of this source, as info shows it")
    verb.add_argument("--person", metavar="P", help="of this person")
    verb.add_argument("--ids-from", type=Path, metavar="FILE", help="whose ids are the lines of this file")
    verb.add_argument("--dry-run", action="store_true", help="only say how many")
    verb.set_defaults(verb_function=run_prune)


def run_prune(options: argparse.Namespace) -> None:
    """Remove pictures, and say how many."""
    from vireid.gallery.prune import PruneOptions, prune

    names = ("index", "gone", "older_than", "source", "person", "ids_from", "dry_run", "state")
    found = prune(PruneOptions(**{name: getattr(options, name) for name in names}))
    print("\n".join(pruned_lines(options.index, found)))


def pruned_lines(index: str, found: Pruned) -> list[str]:
    """What is printed of a pruning."""
    what = "would be" if found.dry_run else "was" if found.rows == 1 else "were"
    said = [f"{index}: {pictures(found.rows)} {what} removed"]
    if found.entries:
        said.append(f"the journal also knew {pictures(found.entries)} that could not be read")
    if found.verdicts:
        said.append(f"feedback on them, which was removed too: {found.verdicts:,}")
    if found.without_time:
        have = "has no time, so it is" if found.without_time == 1 else "have no time, so they are"
        said.append(f"{pictures(found.without_time)} {have} not older than anything and not removed")
    if found.later and not found.dry_run:
        said.append("Milvus removes their bytes from its own files later, by its own settings")
    return said


def pictures(many: int) -> str:
    """A number of pictures in words.

    >>> pictures(1), pictures(2000)
    ('1 picture', '2,000 pictures')
    """
    return f"{many:,} picture{'' if many == 1 else 's'}"
