"""`vireid embed`: features of pictures without labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from vireid.cli import console
from vireid.cli.evaluate import EMBEDDINGS

LISTED = 20  # pictures left out that are named in the terminal; the file names all of them


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    embed = verbs.add_parser(
        "embed",
        help="features of pictures without labels",
        description="Embed the pictures of a folder (at any depth), or of a table with a column path and optionally "
        "modality, camera, identity and time. The file holds features, path and modality, and the other columns that "
        "the table has. vireid score reads an .npz that has identity and camera.",
    )
    embed.add_argument("directory", metavar="RUN", type=Path, help="a run directory")
    embed.add_argument("pictures", metavar="FOLDER|CSV", type=Path, help="a folder, a table, or one picture")
    embed.add_argument("--modality", metavar="M", help="visible or infrared, for pictures without one in the table")
    console.add_output(embed, "--out", "the file to write, .npz or .parquet", required=True)
    embed.add_argument("--checkpoint", choices=("last", "best"), default="last", help="last (default) or best")
    embed.add_argument("--embedding", choices=EMBEDDINGS, default="neck", help="neck (default), pooled or both")
    embed.add_argument("--flip", action="store_true", help="average with the mirrored picture's feature")
    embed.add_argument("--batch", type=console.count, default=64, metavar="N", help="pictures at once (default 64)")
    console.add_precision(embed)
    embed.add_argument("--skip-unreadable", action="store_true", help="leave out pictures that cannot be read")
    console.add_loading(embed)
    console.add_json(embed, "write a summary as JSON")
    embed.set_defaults(verb_function=run_embed)


def run_embed(options: argparse.Namespace) -> None:
    """Embed, and say what was written and what was left out."""
    from vireid.experiments.embed import EmbedOptions, embed
    from vireid.training.progress import Terminal

    names = ("pictures", "modality", "out", "checkpoint", "embedding", "flip", "batch", "precision", "workers", "cache")
    given = {name: getattr(options, name) for name in (*names, "skip_unreadable")}
    found = embed(EmbedOptions(run=options.directory, command=console.command(), **given), Terminal())
    pictures, width = found.features.shape
    infrared = int(found.modality.sum())
    kinds = f"{pictures - infrared:,} visible, {infrared:,} infrared"
    print(f"{options.out}: {pictures:,} features of {width:,} numbers ({kinds}); paths are relative to {found.root}")
    for text in (*found.header["notes"], *found.header["warnings"]):
        print(text)
    if found.unreadable:
        print(f"{len(found.unreadable):,} pictures cannot be read and are left out:")
        print("\n".join(f"  {path}: {reason}" for path, reason in [*found.unreadable.items()][:LISTED]))
        if len(found.unreadable) > LISTED:
            print(f"  … and {len(found.unreadable) - LISTED:,} more, all of them in the header of the file")
    console.write_json(options.json, {"out": str(options.out), "pictures": pictures, "width": width, **found.header})
