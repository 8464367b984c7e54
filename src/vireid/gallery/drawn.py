"""A contact sheet as a picture. Pillow draws it, so it needs no other package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vireid.gallery.sheet import COLOURS, LEGEND, Card, Level, Sheet

COLUMNS = 6
_MARGIN, _GAP = 40, 20
_CARD, _BOX = 196, 236  # width of a card, height of its picture
_PADDING = 10
_TEXT = 5 * 21 + 8
_HEIGHT = _BOX + _TEXT + 2 * _PADDING
_QUERY = 200  # height of a query's picture
_WIDTH = 2 * _MARGIN + COLUMNS * _CARD + (COLUMNS - 1) * _GAP
_INK, _FAINT, _BACK, _FILL, _LINE = "#1b1f24", "#57606a", "#ffffff", "#f0f2f4", "#d0d7de"
_WIDTHS: dict[Level, int] = {"likely": 5, "possible": 3, "weak": 1, "unknown": 1}


def draw(sheet: Sheet) -> Image.Image:
    """Draw a sheet as an RGB picture, 1,336 pixels wide and as high as it needs."""
    words = _wrapped(sheet.words, _WIDTH - 2 * _MARGIN - _queries_width(sheet), 18)
    header = max(_QUERY, 44 + 26 * len(words) + 30) + _MARGIN
    height = _MARGIN + header
    for title, cards in sheet.lists:
        height += (44 if title else 0) + -(-len(cards) // COLUMNS) * (_HEIGHT + _GAP)
    height += (0 if sheet.lists else 60) + 36 + 24 * len(sheet.notes) + _MARGIN
    pen = _Pen(Image.new("RGB", (_WIDTH, height), _BACK))
    _draw_header(pen, sheet, words)
    y = _MARGIN + header
    pen.line(y - _MARGIN // 2)
    if not sheet.lists:
        pen.text(_MARGIN, y, "No matches.", 18)
        y += 60
    for title, cards in sheet.lists:
        if title:
            pen.text(_MARGIN, y, title, 18, bold=True)
            y += 44
        for number, card in enumerate(cards):
            row, column = divmod(number, COLUMNS)
            _draw_card(pen, card, _MARGIN + column * (_CARD + _GAP), y + row * (_HEIGHT + _GAP))
        y += -(-len(cards) // COLUMNS) * (_HEIGHT + _GAP)
    _draw_end(pen, sheet, y)
    return pen.image


@dataclass(frozen=True)
class _Pen:
    image: Image.Image

    @property
    def drawing(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, text: str, size: int, *, bold: bool = False, fill: str = _INK) -> None:
        self.drawing.text((x, y), text, font=_font(size, bold), fill=fill)

    def line(self, y: int) -> None:
        self.drawing.line((_MARGIN, y, _WIDTH - _MARGIN, y), fill=_LINE)

    def picture(self, picture: Image.Image | None, box: tuple[int, int, int, int]) -> None:
        """A picture in the middle of a grey box, as large as fits."""
        left, top, right, bottom = box
        self.drawing.rectangle(box, fill=_FILL)
        if picture is None:
            self.drawing.text(
                ((left + right) / 2, (top + bottom) / 2), "no picture", font=_font(14, False), fill=_FAINT, anchor="mm"
            )
            return
        scale = min((right - left) / picture.width, (bottom - top) / picture.height)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        shown = picture.resize(size, Image.Resampling.LANCZOS)
        self.image.paste(shown, (left + (right - left - size[0]) // 2, top + (bottom - top - size[1]) // 2))

    def frame(self, box: tuple[int, int, int, int], level: Level) -> None:
        """A frame that tells the level by colour, width and dashes."""
        left, top, right, bottom = box
        colour, width = COLOURS[level], _WIDTHS[level]
        if level != "possible":
            self.drawing.rounded_rectangle(box, 8, outline=colour, width=width)
            return
        for x in range(left, right, 16):
            end = min(x + 10, right)
            self.drawing.rectangle((x, top, end, top + width - 1), fill=colour)
            self.drawing.rectangle((x, bottom - width + 1, end, bottom), fill=colour)
        for y in range(top, bottom, 16):
            end = min(y + 10, bottom)
            self.drawing.rectangle((left, y, left + width - 1, end), fill=colour)
            self.drawing.rectangle((right - width + 1, y, right, end), fill=colour)


def _queries_width(sheet: Sheet) -> int:
    widths = [_query_width(one) + 10 for one in sheet.queries]
    return sum(widths) + (50 if sheet.more else 0) + 20


def _query_width(picture: Image.Image | None) -> int:
    return 100 if picture is None else min(220, max(60, round(picture.width * _QUERY / picture.height)))


def _draw_header(pen: _Pen, sheet: Sheet, words: list[str]) -> None:
    x = _MARGIN
    for one in sheet.queries:
        pen.picture(one, (x, _MARGIN, x + _query_width(one), _MARGIN + _QUERY))
        x += _query_width(one) + 10
    if sheet.more:
        pen.text(x, _MARGIN + _QUERY // 2 - 10, f"+ {sheet.more}", 18, fill=_FAINT)
        x += 50
    x += 20
    pen.text(x, _MARGIN - 4, sheet.state.capitalize(), 28, bold=True)
    for number, line in enumerate(words):
        pen.text(x, _MARGIN + 44 + 26 * number, line, 18)
    details = _shortened(sheet.details, _WIDTH - _MARGIN - x, 15)
    pen.text(x, _MARGIN + 44 + 26 * len(words) + 8, details, 15, fill=_FAINT)


def _draw_card(pen: _Pen, card: Card, x: int, y: int) -> None:
    inside, right = x + _PADDING, x + _CARD - _PADDING
    pen.picture(card.picture, (inside, y + _PADDING, right, y + _PADDING + _BOX - 1))
    pen.frame((x, y, x + _CARD - 1, y + _HEIGHT - 1), card.level)
    line, most = y + _PADDING + _BOX + 6, right - inside
    pen.text(inside, line, _shortened(card.title, most, 16, bold=True), 16, bold=True)
    pen.drawing.text((right, line + 1), card.mark, font=_font(14, True), fill=_INK, anchor="ra")
    camera, time, score, path = card.lines
    for number, (text, size) in enumerate(((camera, 14), (time, 14), (score, 14)), 1):
        pen.text(inside, line + 21 * number, _shortened(text, most, size), size)
    pen.text(inside, line + 84, _shortened(path, most, 12, end=True), 12, fill=_FAINT)


def _draw_end(pen: _Pen, sheet: Sheet, y: int) -> None:
    x = _MARGIN
    for level in sheet.levels:
        pen.frame((x, y, x + 25, y + 19), level)
        pen.text(x + 34, y, LEGEND[level], 14)
        x += 34 + round(_font(14, False).getlength(LEGEND[level])) + 28
    for number, note in enumerate(sheet.notes):
        pen.text(_MARGIN, y + 36 + 24 * number, note, 14, fill=_FAINT)


@cache
def _font(size: int, bold: bool) -> Any:
    """DejaVu Sans where the system has it, since it can write more scripts than the font that comes with Pillow."""
    try:
        return ImageFont.truetype("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _wrapped(text: str, width: float, size: int) -> list[str]:
    """Text in lines that are not longer than a width, in pixels. A longer word is cut."""
    font, lines = _font(size, False), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_shortened(line, width, size) for line in lines]


def _shortened(text: str, width: float, size: int, *, bold: bool = False, end: bool = False) -> str:
    """Text that is not longer than a width: with an ellipsis at the end, or at the beginning to keep the end."""
    font = _font(size, bold)
    if font.getlength(text) <= width:
        return text
    kept = text
    while kept and font.getlength(f"…{kept}") > width:
        kept = kept[1:] if end else kept[:-1]
    return f"…{kept}" if end else f"{kept.rstrip()}…"
