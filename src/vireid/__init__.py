"""Visible-infrared person re-identification.

    import vireid

    vireid.train("agw", data="sysu-mm01:worlds/x", run="runs/agw", set={"epochs": 2})
    reports = vireid.test("runs/agw", data="sysu-mm01:worlds/x", protocols=["sysu-mm01/all/single"])
    features = vireid.load("runs/agw").embed(["query.jpg"], modality="infrared")
    found = vireid.embed("runs/agw", "pictures", modality="visible", out="features.npz")
    report = vireid.score(features, identity, camera, modality, protocol="sysu-mm01/all/single")

Losses and blocks are imported from their rooms, for example `vireid.losses.triplet` and `vireid.networks.pooling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "BadInput",
    "Embedded",
    "Modality",
    "Model",
    "Records",
    "Report",
    "Run",
    "embed",
    "figures",
    "load",
    "plugin",
    "recipes",
    "records",
    "reproduce",
    "score",
    "test",
    "train",
]

if TYPE_CHECKING:
    from vireid import figures, recipes
    from vireid.data.errors import BadInput
    from vireid.data.modality import Modality
    from vireid.data.records import Records
    from vireid.evaluation.report import Report
    from vireid.evaluation.scoring import score
    from vireid.experiments.embed import Embedded
    from vireid.model import Model, load
    from vireid.plugins import plugin
    from vireid.python import embed, records, reproduce, test, train
    from vireid.training.run import Run

# Name → (module, name there). Each is imported when first used, so `import vireid` is fast: `load` imports torch, and
# `score` imports numba.
_HOMES = {
    "BadInput": ("vireid.data.errors", "BadInput"),
    "Embedded": ("vireid.experiments.embed", "Embedded"),
    "Modality": ("vireid.data.modality", "Modality"),
    "Model": ("vireid.model", "Model"),
    "Records": ("vireid.data.records", "Records"),
    "Report": ("vireid.evaluation.report", "Report"),
    "Run": ("vireid.training.run", "Run"),
    "embed": ("vireid.python", "embed"),
    "figures": ("vireid.figures", None),  # the room, with a function for each kind of figure
    "load": ("vireid.model", "load"),
    "plugin": ("vireid.plugins", "plugin"),
    "recipes": ("vireid.recipes", None),  # the room itself, which can be called for the names in it
    "records": ("vireid.python", "records"),
    "reproduce": ("vireid.python", "reproduce"),
    "score": ("vireid.evaluation.scoring", "score"),
    "test": ("vireid.python", "test"),
    "train": ("vireid.python", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vireid' has no attribute '{name}'; it has {', '.join(__all__)}")
    import importlib

    module, attribute = _HOMES[name]
    home = importlib.import_module(module)
    return getattr(home, attribute) if attribute else home


def __dir__() -> list[str]:
    return sorted(__all__)
