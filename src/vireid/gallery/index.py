"""An index: a store, the model that its vectors are from, its calibration, and a private folder of this machine."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.stored import as_json, from_values
from vireid.evaluation.calibration import FILE, Calibration
from vireid.gallery.store import Facts, Store, check_facts
from vireid.gallery.store import open as open_store

if TYPE_CHECKING:
    from vireid.model import Model

MODEL, CALIBRATION = "model", "calibration"
"""The names of the two documents that an index keeps in its store."""


@dataclass(frozen=True)
class ModelFacts:
    """What an index knows of its model.

    Attributes:
        path: absolute path of the run or the exported model, as it was when the index was built.
        name: `recipe:row`.
        checkpoint: `last` or `best`.
        runtime: what computes the features of an exported model; empty for PyTorch.
        size: height and width of the pictures that it takes.
        width: numbers of a vector.
        fingerprint: see `vireid.model.Model.fingerprint`.
    """

    path: str
    name: str
    checkpoint: str
    runtime: str
    size: tuple[int, int]
    width: int
    fingerprint: str


@dataclass(frozen=True)
class Index:
    """An open index.

    Attributes:
        url: as it was given.
        store: the rows.
        facts: the model.
        calibration: None if the model was not calibrated.
        folder: a folder of this machine, mode 0700, for the journal, the audit log and feedback.
        model_path: where the model is now; None where `facts.path` says.
    """

    url: str
    store: Store
    facts: ModelFacts
    calibration: Calibration | None
    folder: Path
    model_path: Path | None = None

    @cached_property
    def model(self) -> Model:
        """The model, loaded at the first use.

        Raises:
            BadInput: it is not where it was, or is another model than the one that the index was built with.
        """
        path = self.model_path or Path(self.facts.path)
        if not path.exists():
            raise BadInput(f"the model of {self.url} is not at {path} any more: name it with --model")
        found = load_model(path, self.facts.checkpoint)
        if found.fingerprint != self.facts.fingerprint:
            raise BadInput(
                f"{path} is not the model that {self.url} was built with ({self.facts.name}, "
                f"{self.facts.fingerprint[:16]}): name that one with --model, or build the index anew"
            )
        return found

    def embed(self, pictures: Sequence[Any], modality: Modality) -> np.ndarray:
        """Vectors of pictures, as `vireid.model.Model.embed`: N×D float32 of length one."""
        return self.model.embed(list(pictures), modality)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_index(url: str | Path, *, model: Path | None = None, state: Path | None = None) -> Index:
    """Open an index that is there.

    Args:
        url: a folder, or `milvus://host:port/name`.
        model: where its model is now, if not where it was when the index was built.
        state: the folder of this machine for the journal, the audit log and feedback, for an index in Milvus. None for
            the usual one, see `state_folder`.

    Raises:
        BadInput: there is no index, or it holds no model because it was not made by `vireid gallery build`.
    """
    store = open_store(url)
    try:
        text = store.kept(MODEL)
        if text is None:
            raise BadInput(f"{url} holds vectors and no model: vireid gallery build makes an index with both")
        facts = _facts_of(text, str(url))
        check_facts(str(url), store.facts(), Facts(facts.fingerprint, facts.width, 0, 0))
        kept = store.kept(CALIBRATION)
        calibration = None if kept is None else Calibration.from_text(kept, f"the calibration in {url}")
        return Index(str(url), store, facts, calibration, state_folder(url, state), model)
    except BaseException:
        store.close()
        raise


def make_index(url: str | Path, path: Path, *, checkpoint: str = "last", state: Path | None = None) -> Index:
    """Open the index of a model, or make it. The calibration beside the model is copied into it, if there is one.

    Raises:
        BadInput: the model cannot be read, the index is of another model, or the calibration is.
    """
    folder = state_folder(url, state)
    model = load_model(path, checkpoint)
    facts = facts_of(model)
    calibration = calibration_beside(path, facts.fingerprint)
    store = open_store(url, model=facts.fingerprint, width=facts.width)
    try:
        store.keep(MODEL, _text(facts))
        if calibration is not None:
            store.keep(CALIBRATION, calibration.as_text())
        elif (kept := store.kept(CALIBRATION)) is not None:
            calibration = Calibration.from_text(kept, f"the calibration in {url}")
        index = Index(str(url), store, facts, calibration, folder, path)
    except BaseException:
        store.close()
        raise
    index.__dict__["model"] = model  # it is loaded already
    return index


def calibration_beside(path: Path, model: str) -> Calibration | None:
    """The calibration that `vireid gallery calibrate` wrote beside a model; None if there is none.

    Raises:
        BadInput: it cannot be read, or is of another checkpoint.
    """
    file = path / FILE
    if not file.is_file():
        return None
    found = Calibration.read(file)
    if found.model != model:
        raise BadInput(f"{file} was made with another checkpoint than the one that is used: calibrate again")
    return found


def load_model(path: Path, checkpoint: str = "last") -> Model:
    """A run's network on the fastest device, or an exported model."""
    from vireid.evaluation.embedding import fastest_device
    from vireid.model import load

    found = load(path, checkpoint=checkpoint)
    if not found.runtime:
        found.network.to(fastest_device())
    return found


def facts_of(model: Model) -> ModelFacts:
    """What an index keeps of a model. One picture is embedded, to know how long a vector is."""
    width = model.embed(np.zeros((1, 3, *model.size), np.uint8), Modality.VISIBLE).shape[1]
    return ModelFacts(
        path=str(model.run.path.resolve()),
        name=model.run.facts.name,
        checkpoint=model.checkpoint,
        runtime=model.runtime,
        size=(model.size.height, model.size.width),
        width=width,
        fingerprint=model.fingerprint,
    )


def is_url(index: str | Path) -> bool:
    """Whether an index is in a server, and not a folder."""
    return isinstance(index, str) and re.match(r"[a-zA-Z][\w+.-]*://", index) is not None


def state_folder(url: str | Path, given: Path | None = None) -> Path:
    """The private folder of this machine that belongs to an index. It is made if it is not there.

    Of an index in a folder it is that folder. Of one in Milvus it is the given folder, or one below `XDG_STATE_HOME`.
    """
    if is_url(url):
        place = re.sub(r"[^\w.-]+", "_", str(url).split("?")[0])
        usual = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "vireid" / place
        folder = given or usual
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{folder} cannot be made: {error.strerror}; name another folder with --state") from None
        return folder
    if given is not None:
        raise BadInput(f"the index {url} is a folder, which is its own state folder: leave out {given}")
    return Path(os.fspath(url))


def _text(facts: ModelFacts) -> str:
    return json.dumps(as_json(facts))


def _facts_of(text: str, url: str) -> ModelFacts:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput(f"what {url} says of its model is no JSON") from None
    return from_values(ModelFacts, values, f"what {url} says of its model")
