"""LLCM (Zhang and Wang, CVPR 2023): nine cameras, each visible by day and near-infrared by night.

root/{vis,nir}/<identity>/<identity>_c<camera>_s<second>_f<frame>_{vis,nir}.jpg
root/idx/{train,test}_{vis,nir}.txt           lines "relative path, blank, label"
root/test_{vis,nir}/cam<camera>/<identity>/…  a second copy of the test pictures; used if it exists
"""

from __future__ import annotations

import re
from pathlib import Path

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.records import Records
from vireid.datasets.tree import Entry, Survey, Tree, assemble, folder_names, labelled_paths

FOLDS = 1
EXPECTED = {
    "cameras": 9,
    "identities": 713 + 351,
    "train identities": 713,
    "train visible pictures": 16_946,
    "train infrared pictures": 13_975,
    "test identities": 351,
    "test visible pictures": 8_680,
    "test infrared pictures": 7_166,
    "test visible identity-camera pairs": 484,
    "test infrared identity-camera pairs": 619,
}

MODALITIES = {"vis": Modality.VISIBLE, "nir": Modality.INFRARED}
LISTED = re.compile(r"(?:vis|nir|test_vis|test_nir)/(?:cam\d+/)?(?P<identity>\d{1,9})/(?P<name>[^/]+)")
FOLDERED = re.compile(r"test_(?:vis|nir)/cam(?P<camera>\d{1,4})/(?P<identity>\d{1,9})/(?P<name>[^/]+)")
CAMERA_IN_NAME = re.compile(r"_c(\d{1,4})_")


def looks_like(root: Path) -> bool:
    """Whether a folder has this layout."""
    names = set(folder_names(root))
    return "idx" in names and ({"vis", "nir"} <= names or {"test_vis", "test_nir"} <= names)


def read(root: Path, *, fold: int = 1, survey: Survey | None = None) -> Records:
    """Read the records, sorted by split, modality, camera, identity and file name.

    The gallery draw, which is seeded, depends on the order of the file names within an identity and camera.

    Raises:
        BadInput: lists or files are missing, or a file name has no camera number.
    """
    names = folder_names(root)
    tree = Tree.scan(root, [name for name in ("vis", "nir", "test_vis", "test_nir") if name in names])
    if not tree.pictures:
        raise BadInput(f"{root} has no pictures in folders vis and nir")
    entries: list[tuple[tuple[int, int, int, int, str], Entry]] = []
    notes: list[str] = []
    for rank, split in enumerate(("train", "test")):
        for word, modality in MODALITIES.items():
            if split == "test" and f"test_{word}" in names:
                found = _from_folders(tree, word, notes)
                _mark_known(root, word, survey)
            else:
                found = _from_list(tree, f"idx/{split}_{word}.txt", survey)
            for path, identity, camera, name in found:
                entry = Entry(path, identity, camera, modality, split)
                entries.append(((rank, modality, camera, identity, name), entry))
    entries.sort()
    return assemble("llcm", root, [entry for _, entry in entries], notes=notes)


def _from_folders(tree: Tree, word: str, notes: list[str]) -> list[tuple[str, int, int, str]]:
    """The pictures below `test_<word>`: (path, identity, camera, name)."""
    pictures, strange, moved = [], 0, 0
    for path in tree.pictures:
        if not path.startswith(f"test_{word}/"):
            continue
        found = FOLDERED.fullmatch(path)
        if found is None:
            strange += 1
            continue
        said = CAMERA_IN_NAME.search(found["name"])
        moved += said is not None and int(said[1]) != int(found["camera"])
        pictures.append((path, int(found["identity"]), int(found["camera"]), found["name"]))
    if strange:
        notes.append(f"{strange} pictures are not at test_{word}/cam<number>/<identity>/<name> and are left out")
    if moved:
        notes.append(f"{moved} pictures of test_{word} are in the folder of another camera than their names say")
    return pictures


def _from_list(tree: Tree, name: str, survey: Survey | None) -> list[tuple[str, int, int, str]]:
    """The pictures that a list names: (path, identity, camera, name)."""
    pictures = []
    paths = labelled_paths(tree.root, name)
    for path, file in zip(paths, tree.find_all(paths, named_by=name, survey=survey), strict=True):
        found = LISTED.fullmatch(path)
        camera = CAMERA_IN_NAME.search(found["name"]) if found else None
        if found is None or camera is None:
            raise BadInput(f"{tree.root / name} names '{path}', which is not <vis|nir>/<number>/…_c<camera>_…")
        if file is not None:
            pictures.append((file, int(found["identity"]), int(camera[1]), found["name"]))
    return pictures


def _mark_known(root: Path, word: str, survey: Survey | None) -> None:
    """Tell the survey the other copies of the test pictures, below `vis` and `nir`, so that they are not unlisted."""
    name = f"idx/test_{word}.txt"
    if survey is not None and (root / name).is_file():
        survey.known.update(labelled_paths(root, name))
