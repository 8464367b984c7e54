"""RegDB (Nguyen et al., Sensors 2017): 412 identities, ten visible and ten thermal pictures each, ten folds.

    root/Visible/<identity>/*.bmp   root/Thermal/<identity>/*.bmp
    root/idx/{train,test}_{visible,thermal}_{1..10}.txt      lines "relative path, blank, label"

The labels of the lists start at 0 in each list of each fold. So the identity of a record is the number of its folder.
With these numbers, a checkpoint of one fold can be kept from a test on people that it was trained on.
"""

from __future__ import annotations

import re
from pathlib import Path

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.records import Records
from vireid.datasets.tree import Entry, Survey, Tree, assemble, folder_names, labelled_paths

FOLDS = 10
EXPECTED = {
    "picture files": 8_240,
    "identities": 412,
    **{f"{split} identities": 206 for split in ("train", "test")},
    **{f"{split} {m} pictures": 2_060 for split in ("train", "test") for m in ("visible", "infrared")},
}

# The word of the lists for each modality. The data set has one camera of each modality and does not number them.
MODALITIES = {"visible": (Modality.VISIBLE, 1), "thermal": (Modality.INFRARED, 2)}
PLACE = re.compile(r"(?P<modality>visible|thermal)/(?P<identity>\d{1,9})/[^/]+", re.IGNORECASE)


def looks_like(root: Path) -> bool:
    """Whether a folder has this layout."""
    return {"visible", "thermal"} <= {name.lower() for name in folder_names(root)} and (root / "idx").is_dir()


def read(root: Path, *, fold: int = 1, survey: Survey | None = None) -> Records:
    """Read the records of one fold in the order of its lists: train visible and thermal, test visible and thermal.

    Raises:
        BadInput: lists or files are missing, a line of a list does not fit the layout, or an identity is in both the
            training and the test lists.
    """
    tree = Tree.scan(root, [name for name in folder_names(root) if name.lower() in MODALITIES])
    if not tree.pictures:
        raise BadInput(f"{root} has no pictures in folders Visible and Thermal")
    entries = []
    for split in ("train", "test"):
        for word, (modality, camera) in MODALITIES.items():
            name = f"idx/{split}_{word}_{fold}.txt"
            paths = labelled_paths(root, name)
            for path, file in zip(paths, tree.find_all(paths, named_by=name, survey=survey), strict=True):
                found = PLACE.fullmatch(path)
                if found is None or found["modality"].lower() != word:
                    raise BadInput(f"{root / name} names '{path}', which is not {word.title()}/<number>/<file>")
                if file is not None:
                    entries.append(Entry(file, int(found["identity"]), camera, modality, split))
    both = {e.identity for e in entries if e.split == "train"} & {e.identity for e in entries if e.split == "test"}
    if both:
        raise BadInput(f"fold {fold} of {root} has identity {min(both)} both in its training and its test lists")
    return assemble("regdb", root, entries, fold=fold)
