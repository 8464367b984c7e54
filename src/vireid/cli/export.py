"""`vireid export`: a run's network as files for ONNX Runtime or OpenVINO."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vireid.cli import console

if TYPE_CHECKING:
    from vireid.export.runtime import Exported


def register(verbs: argparse._SubParsersAction) -> None:
    """Add the verb."""
    verb = verbs.add_parser(
        "export",
        help="a run's network as files for ONNX Runtime or OpenVINO",
        description="Write one file for each modality: N×3×H×W uint8 pictures in, features out. They are compared with "
        "PyTorch, and kept only if they compute the same. vireid test and vireid embed take the directory as they take "
        "a run.",
    )
    verb.add_argument("directory", metavar="RUN", type=Path, help="a run directory")
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="the directory to make")
    verb.add_argument("--to", choices=("onnx", "openvino"), default="onnx", help="onnx (default) or openvino")
    verb.add_argument("--checkpoint", choices=("last", "best"), default="last", help="last (default) or best")
    verb.add_argument("--int8", action="store_true", help="compute in integers of 8 bits: smaller and faster")
    verb.add_argument(
        "--calibrate",
        metavar="LAYOUT:PATH|DIR|CSV",
        help="pictures for --int8: a labelled data set, by which mAP is measured before and after; or a folder with "
        "the folders visible and infrared, or a table with path and modality",
    )
    verb.add_argument("--accept-loss", action="store_true", help="keep int8 files that lose more than one point of mAP")
    console.add_loading(verb)
    console.add_json(verb, "write export.json here too")
    verb.set_defaults(verb_function=run)


def run(options: argparse.Namespace) -> None:
    """Export, and say what was written and how it compares."""
    from vireid.data.stored import as_json
    from vireid.experiments.export import ExportOptions, export
    from vireid.training.progress import Terminal

    names = ("out", "to", "checkpoint", "int8", "calibrate", "accept_loss", "workers", "cache")
    given = {name: getattr(options, name) for name in names}
    found = export(ExportOptions(run=options.directory, command=console.command(), **given), Terminal())
    print("\n".join(lines(found)))
    console.write_json(options.json, as_json(found.facts))


def lines(found: Exported) -> list[str]:
    """What is printed of an exported model."""
    facts, directory = found.facts, found.file.parent
    sizes = [f"{name} {(directory / name).stat().st_size / 1e6:,.1f} MB" for name in facts.files]
    said = [f"{directory}: {', '.join(sizes)}"]
    differences = ", ".join(f"{modality} {value:.0e}" for modality, value in facts.differences.items())
    said.append(f"largest difference from PyTorch over 64 pictures each (one minus the cosine): {differences}")
    if facts.int8:
        counts = " and ".join(f"{count} {modality}" for modality, count in facts.int8.pictures.items())
        cosines = ", ".join(f"{modality} {value:.4f}" for modality, value in facts.int8.cosines.items())
        said.append(f"int8: ranges from {counts} pictures; smallest cosine with float32: {cosines}")
    if facts.int8 and facts.int8.losses:
        rows = [
            (one.protocol, f"{one.before:.2f}", f"{one.after:.2f}", f"{-one.loss:+.2f}") for one in facts.int8.losses
        ]
        said.append(console.table(("protocol", "mAP float32", "int8", "change"), rows))
    elif facts.int8:
        said.append("the pictures have no labels: how much mAP is lost is not known")
    return said
