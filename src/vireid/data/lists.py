"""A protocol from a file: lists of the queries and of the gallery, and the rules.

    query: queries.csv            a file beside this one, or a list of paths
    gallery: gallery.csv
    exclude: camera               none (the default), camera, or identity-camera
    cmc: image                    image (the default) or identity
    tracklets: average            none (the default), average, min, or mean

A list file has one path in each line, as the records of the data set name it. If its first line has a column `path`,
it is a table, and its other columns are not used.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import typing
from pathlib import Path
from typing import Any

from vireid.data.errors import BadInput, unknown
from vireid.data.protocol import Protocol, Side, Tracklets

EXCLUDE = ("none", "camera", "identity-camera")
RULES = {"exclude": EXCLUDE, "cmc": ("image", "identity"), "tracklets": typing.get_args(Tracklets)}
"""Rule → its choices, the default first."""

MOST_BYTES = 64 * 2**20


def read_lists(file: str | Path) -> Protocol:
    """The protocol that a file gives.

    Its name is `lists/FILE-DIGITS`. The digits are a hash of its rules and lists, so different protocols have different
    names, wherever their files are.

    Raises:
        BadInput: a file cannot be read, an entry is unknown or missing, a list is empty or names a picture twice, or a
            picture is in both lists and nothing excludes it.
    """
    import yaml

    path = Path(file).expanduser()
    try:
        said = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise BadInput(f"protocol file {path} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(said, dict):
        raise BadInput(f"protocol file {path} needs the entries query and gallery")
    if strange := [str(name) for name in said if name not in ("query", "gallery", *RULES)]:
        raise unknown(f"entry in {path}", strange[0], ("query", "gallery", *RULES))
    rules = {name: _rule(path, name, said) for name in RULES}
    query, gallery = (_paths(path, name, said.get(name)) for name in ("query", "gallery"))
    if (both := sorted(set(query) & set(gallery))) and rules["exclude"] == "none":
        raise BadInput(f"{path}: '{both[0]}' is a query and in the gallery, so it would find itself; set exclude")
    told = json.dumps([rules, sorted(query), sorted(gallery)], sort_keys=True)
    stem = re.sub(r"[^\w-]+", "-", path.stem)
    return Protocol(
        f"lists/{stem}-{hashlib.sha256(told.encode()).hexdigest()[:8]}",
        layout="",
        query=Side(None, paths=query),
        gallery=Side(None, paths=gallery),
        exclusion=rules["exclude"],
        cmc=rules["cmc"],
        tracklets=rules["tracklets"],
        note=_note(rules),
    )


def _rule(path: Path, name: str, said: dict[str, Any]) -> Any:
    found = said.get(name, RULES[name][0])
    if found is None:  # YAML's null, which people write for `none`
        found = "none"
    if found not in RULES[name]:
        raise unknown(f"{name} in {path}", str(found), RULES[name])
    return found


def _paths(path: Path, name: str, said: Any) -> tuple[str, ...]:
    """The paths of one list."""
    if said is None:
        raise BadInput(f"protocol file {path} has no entry '{name}'; it needs query and gallery")
    where = path
    if isinstance(said, str):
        where = path.parent / said
        found = _column(_text(where))
    elif isinstance(said, list) and all(isinstance(one, str) for one in said):
        found = [one.strip() for one in said]
    else:
        raise BadInput(f"{path}: {name} cannot be {str(said)[:60]!r}; it takes the name of a file, or a list of paths")
    found = [one.replace("\\", "/") for one in found]
    if not found:
        raise BadInput(f"{where} names no {name} picture")
    seen: set[str] = set()
    for one in found:
        if one in seen:
            raise BadInput(f"{where} names '{one}' twice")
        seen.add(one)
    return tuple(found)


def _column(text: str) -> list[str]:
    """The column `path` of a table, or else the first cell of every line."""
    lines = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text, newline=""))]
    lines = [line for line in lines if any(line)]
    column = 0
    if lines and "path" in (head := [cell.lower() for cell in lines[0]]):
        column, lines = head.index("path"), lines[1:]
    return [line[column] for line in lines if column < len(line) and line[column]]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"{path} is larger than {MOST_BYTES // 2**20} MiB; a protocol file or a list is smaller")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, ValueError):
        raise BadInput(f"{path} is not text in UTF-8") from None


def _note(rules: dict[str, Any]) -> str:
    words = {
        "none": "",
        "average": "; queries and gallery are tracklets, compared by their mean features",
        "min": "; queries and gallery are tracklets, compared by the smallest distance of their pictures",
        "mean": "; queries and gallery are tracklets, compared by the mean distance of their pictures",
    }
    return f"queries and gallery are given by lists (exclude: {rules['exclude']})" + words[rules["tracklets"]]
