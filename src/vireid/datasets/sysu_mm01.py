"""SYSU-MM01 (Wu et al., ICCV 2017): six cameras, two of them infrared.

    root/cam{1..6}/<identity>/<number>.jpg
    root/exp/{train_id,val_id,test_id}.txt        one comma-separated line of identities each

Training uses `train` and `val` together (395 identities), unless `val` is needed to choose a model.
"""

from __future__ import annotations

import re
from pathlib import Path

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.records import Records
from vireid.datasets.tree import Entry, Survey, Tree, assemble, folder_names, read_list

FOLDS = 1
TRAINING = ("train", "val")
INFRARED_CAMERAS = (3, 6)
LISTS = {"train": "exp/train_id.txt", "val": "exp/val_id.txt", "test": "exp/test_id.txt"}

# Counted from the public lists of the splits. The number of files on disk is stated by the data set's paper.
EXPECTED = {
    "picture files": 30_071 + 15_792,
    "identities": 491,
    "cameras": 6,
    "train identities": 296,
    "train visible pictures": 20_284,
    "train infrared pictures": 9_929,
    "val identities": 99,
    "val visible pictures": 1_974,
    "val infrared pictures": 1_980,
    "test identities": 96,
    "test visible pictures": 6_775,
    "test infrared pictures": 3_803,
    "test visible identity-camera pairs": 301,
    "test infrared identity-camera pairs": 189,
    **{f"test camera {c} identities": n for c, n in zip(range(1, 7), (56, 56, 93, 94, 95, 96), strict=True)},
    **{f"test camera {c} pictures": n for c, n in zip(range(1, 7), (1374, 1565, 1883, 1918, 1918, 1920), strict=True)},
}


def looks_like(root: Path) -> bool:
    """Whether a folder has this layout."""
    return (root / LISTS["train"]).is_file() and any(CAMERA.fullmatch(name) for name in folder_names(root))


def read(root: Path, *, fold: int = 1, survey: Survey | None = None) -> Records:
    """Read the records, sorted by camera, identity and file name. AGW's gallery draw depends on this order.

    Raises:
        BadInput: folders or lists are missing, or the lists contradict each other.
    """
    cameras = [name for name in folder_names(root) if CAMERA.fullmatch(name)]
    if not cameras:
        raise BadInput(f"{root} has no camera folders cam1 to cam6")
    split_of = _splits(root)
    tree = Tree.scan(root, cameras)
    entries: list[tuple[tuple[int, int, str], Entry]] = []
    left_out: set[int] = set()
    strange = 0
    for path in tree.pictures:
        found = PLACE.fullmatch(path)
        if found is None:
            strange += 1
            continue
        camera, identity = int(found["camera"]), int(found["identity"])
        if identity not in split_of:
            left_out.add(identity)
            continue
        modality = Modality.INFRARED if camera in INFRARED_CAMERAS else Modality.VISIBLE
        entry = Entry(path, identity, camera, modality, split_of[identity])
        entries.append(((camera, identity, found["name"]), entry))
    entries.sort()
    absent = sorted(set(split_of) - {entry.identity for _, entry in entries})
    if survey is not None:
        survey.missing += [(LISTS[split_of[i]], f"identity {i:04d}") for i in absent]
    notes = []
    if left_out:
        notes.append(f"{len(left_out)} identities are in none of the three lists and are left out")
    if absent:
        notes.append(f"{len(absent)} identities of the lists have no pictures, the first is {absent[0]:04d}")
    if strange:
        notes.append(f"{strange} pictures are not at cam<1-6>/<identity>/<name> and are left out")
    return assemble("sysu-mm01", root, [entry for _, entry in entries], notes=notes)


CAMERA = re.compile(r"cam[1-6]")
PLACE = re.compile(r"cam(?P<camera>[1-6])/(?P<identity>\d{1,9})/(?P<name>[^/]+)")


def _splits(root: Path) -> dict[int, str]:
    """The split of each identity that a list names."""
    split_of: dict[int, str] = {}
    for split, name in LISTS.items():
        words = re.split(r"[\s,]+", read_list(root, name).strip(" \t\r\n,"))
        wrong = [word for word in words if not re.fullmatch(r"\d{1,9}", word)]
        if wrong:
            raise BadInput(f"{root / name} should be identity numbers with commas between them, not '{wrong[0][:40]}'")
        for identity in map(int, words):
            if split_of.setdefault(identity, split) != split:
                raise BadInput(f"identity {identity} is in both {LISTS[split_of[identity]]} and {name} of {root}")
    return split_of
