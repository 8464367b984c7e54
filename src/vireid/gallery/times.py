"""Times of pictures, as people write them and as a gallery keeps them: milliseconds since 1970, UTC."""

from __future__ import annotations

import re
import time as clock
from datetime import UTC, datetime, timedelta

from vireid.data.errors import BadInput
from vireid.gallery.row import EARLIEST, LATEST

_START = datetime(1970, 1, 1, tzinfo=UTC)
_AGO = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_MILLISECOND = timedelta(milliseconds=1)


def parse_time(text: str, what: str = "time", *, now: int | None = None) -> int:
    """Read a time.

    >>> parse_time("2026-03-01"), parse_time("2026-03-01T03:11:09+01:00"), parse_time("2h", now=10_000_000)
    (1772323200000, 1772331069000, 2800000)

    Args:
        text: ISO 8601: a date, which means its first moment, or date and time; without a zone it is UTC. Or how long
            ago: a whole number and m, h, d or w (minutes, hours, days, weeks).
        what: the name of the option or the field, for the sentence.
        now: milliseconds since 1970; None for the clock's time.

    Returns:
        Milliseconds since 1970, UTC; what is smaller is cut off.

    Raises:
        BadInput: the text is no such time, or is outside the years 1 to 9998.
    """
    if ago := _AGO.fullmatch(text.strip()):
        found = (clock.time_ns() // 1_000_000 if now is None else now) - int(ago[1]) * _UNITS[ago[2]]
    else:
        try:
            moment = datetime.fromisoformat(text.strip())
            # The subtraction takes the zone off. It is done with whole numbers, so no millisecond is lost.
            found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _START
            found = found // _MILLISECOND
        except (ValueError, OverflowError):
            raise BadInput(
                f"{what} takes a date or a time such as 2026-03-01, 2026-03-01T14:30 or 2026-03-01T14:30:00+01:00 "
                f"(UTC without a zone), or how long ago: 30m, 2h, 7d, 4w; not {text[:40]!a}"
            ) from None
    if not EARLIEST <= found < LATEST:
        raise BadInput(f"{what} must be in the years 1 to 9998, and {text[:40]!a} is not")
    return found


def time_text(time: int | None) -> str | None:
    """A time as ISO 8601 in UTC, with milliseconds only if there are any; None stays None.

    >>> time_text(1772331069000), time_text(1772331069050)
    ('2026-03-01T02:11:09Z', '2026-03-01T02:11:09.050Z')
    """
    if time is None:
        return None
    moment = _START + time * _MILLISECOND
    parts = "milliseconds" if time % 1000 else "seconds"
    return moment.isoformat(timespec=parts).replace("+00:00", "Z")
