"""Who may use a service: named tokens, and how often.

A token is 256 random bits. The file of tokens holds their SHA-256 only: who reads it cannot log in. A hash without salt
and without many rounds is enough, since nobody can guess 256 random bits.

    tokens, text = Tokens.make(file, "ward 3")   # the text is shown once, to the person
    tokens.who(text)                             # 'ward 3'
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from vireid.data.errors import BadInput, unknown
from vireid.gallery.private import read_private, write_private

BITS = 256
PERSONS = 10_000
"""Most tokens of a file."""
NAME = re.compile(r"[^\W_][\w.@ -]{0,63}")
"""A token's name begins with a letter or a digit, so that no spreadsheet takes it for a formula."""
MOST = 4 * 2**20
LONG = 200
ROUNDING = 1e-6
"""Who waited for exactly as long as was said must not be refused for the last bit of a sum."""

_HASH = re.compile(r"[0-9a-f]{64}")


class Tokens:
    """The tokens of a service. All methods may be called by several threads.

    A service that was given a file looks at it again when it changes, so a token that was removed stops working at
    once. If the file can no longer be read, no token works.
    """

    def __init__(self, hashes: Mapping[str, str], file: Path | None = None) -> None:
        self._hashes = dict(hashes)
        self._file = file
        self._state = _state(file)

    @classmethod
    def temporary(cls, name: str = "local") -> tuple[Tokens, str]:
        """One token that lives as long as the process: the tokens, and the token's text."""
        text = secrets.token_urlsafe(BITS // 8)
        return cls({checked_name(name): _hash(text)}), text

    @classmethod
    def make(cls, file: Path, name: str = "local") -> tuple[Tokens, str]:
        """Make a token and add it to a file, which is made if it is not there.

        Args:
            file: JSON, from a name to the SHA-256 of its token. Its mode is 0600.
            name: letters, digits, spaces and `._@-`, up to 64 characters, beginning with a letter or a digit.

        Returns:
            The tokens of the file, and the text of the new one, which is stored nowhere.

        Raises:
            BadInput: the name cannot be used or has a token, or the file cannot be read or written.
        """
        hashes = _read(file) if os.path.lexists(file) else {}
        if checked_name(name) in hashes:
            raise BadInput(f"'{name}' has a token in {file}: remove it first, or choose another name")
        text = secrets.token_urlsafe(BITS // 8)
        _write(file, {**hashes, name: _hash(text)})
        return cls.read(file), text

    @classmethod
    def read(cls, file: Path) -> Tokens:
        """The tokens of a file.

        Raises:
            BadInput: there is no such file, it is no file of tokens or has none, or others may read or write it.
        """
        state = _state(file)
        if not (hashes := _read(file)):
            raise BadInput(f"{file} has no token in it, so nobody could log in")
        made = cls(hashes, file)
        made._state = state  # taken before reading: a change in between is seen later
        return made

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in alphabetical order."""
        return tuple(sorted(self._hashes))

    def who(self, token: str) -> str | None:
        """The name of a token's owner; None if nobody has it.

        The time does not depend on how much of a token is right: it is hashed, and compared with every known hash.
        """
        self._look_again()
        if len(token) > LONG:
            return None
        given = _hash(token)
        found = None
        for name, known in self._hashes.items():
            if hmac.compare_digest(given, known):
                found = name
        return found

    def _look_again(self) -> None:
        if self._file is None or (state := _state(self._file)) == self._state:
            return
        try:
            self._hashes = _read(self._file)
        except BadInput:
            self._hashes = {}
        self._state = state


def remove_token(file: Path, name: str) -> None:
    """Remove the token of a name from a file. A running service stops to accept it.

    Raises:
        BadInput: the file cannot be read or written, or the name has no token.
    """
    hashes = _read(file)
    if name not in hashes:
        raise unknown("name of a token", name[:80], sorted(hashes))
    _write(file, {other: known for other, known in hashes.items() if other != name})


def checked_name(name: str) -> str:
    """A name of a token.

    Raises:
        BadInput: it cannot be one.
    """
    if not NAME.fullmatch(name):
        raise BadInput(
            "the name of a token has up to 64 letters, digits, spaces and ._@-, and begins with a letter or a digit; "
            f"{name[:80]!a} does not"
        )
    return name


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _state(file: Path | None) -> tuple[int, ...] | None:
    """What changes when a file is replaced or written."""
    if file is None:
        return None
    try:
        found = os.lstat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _read(file: Path) -> dict[str, str]:
    data = read_private(file, MOST)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise BadInput(f"{file} is not JSON, so it is no file of tokens") from None
    if not isinstance(found, dict) or len(found) > PERSONS:
        raise BadInput(f"{file} is no file of tokens: it must have up to {PERSONS} names, each with a SHA-256")
    for name, known in found.items():
        if not NAME.fullmatch(name) or not isinstance(known, str) or not _HASH.fullmatch(known):
            raise BadInput(f"{file} is no file of tokens: {name[:80]!a} is no name with a SHA-256")
    return found


def _write(file: Path, hashes: Mapping[str, str]) -> None:
    write_private(file, (json.dumps(hashes, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


class Limits:
    """How often a name may search, and how often an address may come with a wrong token.

    Each name has a bucket of `burst` searches that fills again with `rate` a second; each address one of `failures`
    wrong tokens that fills again within `minute` seconds. All methods may be called by several threads. The memory is
    bounded: buckets that are full again are forgotten, and of more than 10,000 the oldest are.

    A service should ask `Tokens.who` first, and `blocked` only for a token that nobody has. Otherwise one client with
    wrong tokens would lock out everybody behind the same proxy. It could not guess a right one anyway.
    """

    def __init__(
        self,
        rate: float = 5,
        burst: int = 20,
        *,
        failures: int = 10,
        minute: float = 60,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            rate: searches a second.
            burst: searches at once.
            failures: wrong tokens at once.
            minute: seconds in which `failures` are forgiven.
            clock: seconds that never go back.

        Raises:
            BadInput: a number is not above 0, or `burst` or `failures` is below 1.
        """
        if not (rate > 0 and minute > 0 and burst >= 1 and failures >= 1):
            raise BadInput("limits must be above 0, and allow at least one search and one wrong token at a time")
        self._searches = _Buckets(rate, burst, clock)
        self._failures = _Buckets(failures / minute, failures, clock)

    def wait(self, name: str) -> float:
        """Ask for one search: 0 if it may begin, else the seconds until it may be asked for again."""
        return self._searches.take(name)

    def failed(self, address: str) -> None:
        """Note that an address came with a wrong token."""
        self._failures.take(_network(address))

    def blocked(self, address: str) -> float:
        """How many seconds an address must wait, because it came with wrong tokens; 0 if it need not."""
        return self._failures.missing(_network(address))


class _Buckets:
    """One bucket for each key."""

    MOST = 10_000

    def __init__(self, rate: float, size: float, clock: Callable[[], float]) -> None:
        self._rate, self._size, self._clock = rate, size, clock
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key → level, when it was that

    def take(self, key: str) -> float:
        """Take one, if there is one: 0; else the seconds until there is."""
        with self._lock:
            now = self._clock()
            level = self._level(key, now)
            enough = level >= 1 - ROUNDING
            self._levels[key] = (level - 1 if enough else level, now)
            self._levels.move_to_end(key)
            self._shrink(now)
            return 0.0 if enough else (1 - level) / self._rate

    def missing(self, key: str) -> float:
        """The seconds until there is one; 0 if there is. Nothing is taken."""
        with self._lock:
            lacking = 1 - self._level(key, self._clock())
            return lacking / self._rate if lacking > ROUNDING else 0.0

    def _level(self, key: str, now: float) -> float:
        level, then = self._levels.get(key, (self._size, now))
        return min(self._size, level + max(0.0, now - then) * self._rate)

    def _shrink(self, now: float) -> None:
        """Forget full buckets: a key without one has a full one. The first ones were used longest ago."""
        while self._levels:
            oldest = next(iter(self._levels))
            if len(self._levels) <= self.MOST and self._level(oldest, now) < self._size:
                return
            del self._levels[oldest]


def _network(address: str) -> str:
    """The address; of IPv6 the first 64 bits, since one customer gets all the others."""
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address[:LONG]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((found, 64), strict=False))
    return str(found)
