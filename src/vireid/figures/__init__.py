"""What a person looks at: the papers' figures, the HTML report, tables.

Each kind of figure is also a function of this room, for arrays and networks of any origin: `vireid.figures.tsne`,
`vireid.figures.distances` and so on. `vireid.figures.draw` draws figures of runs, as `vireid figures` does.
"""

from __future__ import annotations

from typing import Any

_DRAWING = {
    "Figure": "vireid.figures.drawing",
    "Look": "vireid.figures.drawing",
    "draw": "vireid.figures.of_runs",
    "write": "vireid.figures.drawing",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _DRAWING:
        return getattr(importlib.import_module(_DRAWING[name]), name)
    from vireid.figures.kinds import kind, kinds

    if name in kinds():
        return getattr(kind(name), name)
    raise AttributeError(f"module 'vireid.figures' has no attribute '{name}'; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    from vireid.figures.kinds import kinds

    return sorted([*_DRAWING, *kinds()])
