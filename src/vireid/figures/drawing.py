"""How figures look, and how they are written: one style for all of them, made for a column of a paper.

matplotlib is imported when a figure is drawn, because it is an extra: `pip install 'vireid[figures]'`.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vireid.data.errors import BadInput
from vireid.data.stored import as_json, write_json, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MILLIMETRE = 1 / 25.4  # in inches, matplotlib's unit
COLUMN, PAGE = 84 * MILLIMETRE, 174 * MILLIMETRE
DPI = 300
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's colours, which people with the usual forms of colour blindness can tell apart. Lines that have
different colours also have different markers or dashes, so a figure can be read in grey."""
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
RIGHT, WRONG = "#009e73", "#d55e00"
"""Frames of a true match and of another person. A wrong one is dashed as well."""
VISIBLE, INFRARED = "#0072b2", "#d55e00"
"""The two modalities, in every figure: visible with circles, infrared with triangles."""

Theme = Literal["light", "dark"]
Width = Literal["column", "page"]
Format = Literal["png", "svg", "pdf"]


@dataclass(frozen=True)
class Look:
    """How figures are drawn.

    Attributes:
        theme: `light` (dark on white) or `dark` (light on dark grey).
        width: `column` (84 mm) or `page` (174 mm, two columns).
        formats: the files that are written of each figure.
    """

    theme: Theme = "light"
    width: Width = "column"
    formats: tuple[Format, ...] = ("png", "svg")

    @property
    def inches(self) -> float:
        """The width in inches."""
        return COLUMN if self.width == "column" else PAGE

    @property
    def ink(self) -> str:
        """The colour of text and axes."""
        return "#1d2733" if self.theme == "light" else "#e4e9ee"

    @property
    def faint(self) -> str:
        """The colour of grids and of what stands behind."""
        return "#c9d1d9" if self.theme == "light" else "#3a4653"

    @property
    def paper(self) -> str:
        """The colour of the background."""
        return "#ffffff" if self.theme == "light" else "#14191f"

    def colour(self, number: int) -> str:
        """The colour of line `number`; black becomes white on a dark background."""
        found = PALETTE[number % len(PALETTE)]
        return self.ink if found == "#000000" else found


@dataclass(frozen=True)
class Figure:
    """A figure that can be drawn in any look, and the numbers behind it.

    Attributes:
        name: the name of its files, without ending; it begins with the name of its kind.
        caption: sentences for below the figure: what is shown, and the data, protocol, seed and checkpoint.
        numbers: what is drawn, as plain values or arrays; `figures.json` holds them.
        draw: draws it. It is called within the style of the look.
    """

    name: str
    caption: str
    numbers: Mapping[str, Any]
    draw: Callable[[Look], Canvas]

    def image(self, look: Look | None = None, form: Format = "png") -> bytes:
        """The figure as a file's content.

        Raises:
            BadInput: matplotlib is not installed.
        """
        look = look or Look()
        mpl = matplotlib()
        with mpl.rc_context(style(look)):
            canvas = self.draw(look)
            stream = io.BytesIO()
            # Without a date, the same figure gives the same bytes. Formats know different metadata.
            dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form, {})
            canvas.savefig(stream, format=form, dpi=DPI, metadata=dated)
        return stream.getvalue()


def matplotlib() -> Any:
    """matplotlib, set up to draw without a screen.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import matplotlib as found
    except ImportError as error:
        raise BadInput("figures need matplotlib and scikit-learn: pip install 'vireid[figures]'") from error
    return found


def canvas(look: Look, height: float, **grid: Any) -> tuple[Canvas, Any]:
    """A canvas of the look's width, and its axes.

    A canvas is made without `matplotlib.pyplot`, which would keep it in memory and may look for a screen.

    Args:
        look: the look.
        height: in inches.
        grid: for `Figure.subplots`, such as the numbers of rows and columns.
    """
    matplotlib()
    from matplotlib.figure import Figure as Made

    made = Made(figsize=(look.inches, height), layout="constrained")
    return made, made.subplots(**grid)


def wrapped(names: Iterable[str], look: Look) -> list[str]:
    """Names for a legend that has the whole width: long ones in several lines, so that none reaches over the edge."""
    return [textwrap.fill(name, 50 if look.width == "column" else 110) for name in names]


def style(look: Look) -> dict[str, Any]:
    """matplotlib's settings for a look. Text is 7 to 8 points in the printed size, and stays text in SVG and PDF."""
    return {
        "font.family": "sans-serif",
        "font.size": 7,
        "axes.titlesize": 8,
        "axes.labelsize": 7,
        "legend.fontsize": 7,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": look.faint,
        "grid.linewidth": 0.4,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.5,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "vireid",
        "pdf.fonttype": 42,
        "figure.facecolor": look.paper,
        "savefig.facecolor": look.paper,
        "axes.facecolor": look.paper,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), look.ink),
    }


def write(figures: Sequence[Figure], out: Path, look: Look | None = None) -> list[Path]:
    """Write the files of figures, then `figures.json` with their captions and the numbers behind them.

    `figures.json` keeps what it says about other figures, so a second call with other figures adds to the folder.

    Returns:
        The files, `figures.json` last.

    Raises:
        BadInput: matplotlib is not installed, two figures have the same name, or a file cannot be written.
    """
    look = look or Look()
    names = [one.name for one in figures]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"two figures are called {twice[0]}")
    written: list[Path] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for one in figures:
            for form in look.formats:
                file = out / f"{one.name}.{form}"
                with writing(file) as stream:
                    stream.write(one.image(look, form))
                written.append(file)
        listed = _described(figures, written, out)
        write_json(out / "figures.json", listed)
    except OSError as error:
        raise BadInput(f"cannot write into {out}: {error.strerror}") from error
    return [*written, out / "figures.json"]


def _described(figures: Iterable[Figure], written: Iterable[Path], out: Path) -> dict[str, Any]:
    from vireid.data.stored import read_json

    file = out / "figures.json"
    kept = read_json(file) if file.exists() else {}
    names = [path.name for path in written]
    for one in figures:
        own = [name for name in names if name.rpartition(".")[0] == one.name]
        kept[one.name] = {"caption": one.caption, "files": own, "numbers": as_json(plain(one.numbers))}
    return dict(sorted(kept.items()))


def plain(value: Any) -> Any:
    """A value with arrays as lists and numbers of NumPy as numbers; NaN and infinite numbers are None."""
    import numpy as np

    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and value - value != 0:
        return None
    return value
