"""Augmentations: functions from images to images. All random numbers come from a generator that the caller passes.

An augmentation from outside the package is an `Added`, under a name. `RECIPE+NAME` is the recipe with this
augmentation: see `vireid.recipes.recipe`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from vireid.data.errors import BadInput, unknown
from vireid.data.outside import entry_points, load_entry_point
from vireid.data.settings import note

if TYPE_CHECKING:
    from vireid.augment.pipeline import Pipeline

PLACES = ("geometry", "visible_before", "visible", "infrared")
"""The groups of operations of `vireid.augment.pipeline.Pipeline`."""


@dataclass(frozen=True)
class Added:
    """An augmentation that any recipe can take.

    Attributes:
        operation: an instance of a settings class with the methods `draw` and `change` of
            `vireid.augment.operation.Operation`. Its values are the defaults.
        place: which group of the pipeline it is appended to, one of `PLACES`.

    Raises (when an instance is made):
        BadInput: the operation has no such methods or is no settings object, or the place is unknown.
        ValueError: a field of its class has no note.
    """

    operation: Any
    place: str

    def __post_init__(self) -> None:
        kind = type(self.operation)
        if not (is_dataclass(kind) and hasattr(kind, "__pydantic_fields__")):
            raise BadInput(f"augmentation {kind.__name__} must be an instance of a class with @settings")
        if not (callable(getattr(kind, "draw", None)) and callable(getattr(kind, "change", None))):
            raise BadInput(f"augmentation {kind.__name__} needs the methods draw and change")
        if self.place not in PLACES:
            raise unknown("place of an augmentation", str(self.place), PLACES)
        for field in fields(kind):
            note(kind, field.name)

    def to(self, pipeline: Pipeline, operation: Any) -> Pipeline:
        """A pipeline with one more operation at this place, in its second view as well."""
        second = pipeline.second_view
        return replace(
            pipeline,
            **{self.place: (*getattr(pipeline, self.place), operation)},
            second_view=None if second is None else self.to(second, operation),
        )


_added: dict[str, Added] = {}


def register(augmentations: Mapping[str, Added]) -> None:
    """Make augmentations known by their names.

    Raises:
        BadInput: a name is not a Python name, or the value is no `Added`.
    """
    for name, added in augmentations.items():
        if not str(name).isidentifier() or not isinstance(added, Added):
            raise BadInput(
                f"augmentation '{name}' must be a Python name with Added(OPERATION, PLACE), not {type(added).__name__}"
            )
    _added.update(augmentations)


def augmentations() -> tuple[str, ...]:
    """The names of the augmentations from outside, sorted."""
    return tuple(sorted({*_added, *entry_points("vireid.augment")}))


def augmentation(name: str) -> Added:
    """One augmentation from outside.

    Raises:
        BadInput: there is none of this name, or its package cannot be loaded.
    """
    if name not in _added:
        found = load_entry_point("vireid.augment", name)
        if found is not None:
            register(getattr(found.module, "AUGMENTATIONS", {}))
    if name not in _added:
        raise unknown("augmentation", name, augmentations())
    return _added[name]


def forget(names: Iterable[str]) -> None:
    """Remove augmentations, which a file that is executed again will give anew."""
    for name in names:
        _added.pop(name, None)
