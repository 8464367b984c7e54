"""Plug-ins in tests: everything that a test loads is forgotten after it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from vireid import augment, datasets, plugins, recipes
from vireid.data import outside, protocol


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """At the end of the block, no plug-in is known that was not known at its beginning."""
    rooms: tuple[dict, ...] = (
        outside._loaded, plugins._held, recipes._outside, recipes._extended, datasets._outside, augment._added,
        protocol._outside,
    )  # fmt: skip
    before, layouts, modules = [dict(room) for room in rooms], set(protocol._layouts_outside), set(sys.modules)
    try:
        yield
    finally:
        for room, kept in zip(rooms, before, strict=True):
            room.clear()
            room.update(kept)
        protocol._layouts_outside.clear()
        protocol._layouts_outside.update(layouts)
        for name in set(sys.modules) - modules:
            if name.startswith(outside.PREFIX):
                del sys.modules[name]
