"""Tokens and limits."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vireid.data.errors import BadInput
from vireid.gallery.service import access
from vireid.gallery.service.access import Limits, Tokens, remove_token

POSIX = pytest.mark.skipif(os.name != "posix", reason="only POSIX systems have these modes")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_known_by_its_text_alone(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    _, one = Tokens.make(file, "ward 3")
    tokens, other = Tokens.make(file, "night")
    assert (tokens.who(one), tokens.who(other)) == ("ward 3", "night")
    assert tokens.names == ("night", "ward 3")
    for wrong in ("", "night", one[:-1], f"{one}x", one.upper(), one[::-1], "é" * 43, "\ud800", "x" * 10**6):
        assert tokens.who(wrong) is None
    assert Tokens.read(file).who(one) == "ward 3"


def test_the_file_has_hashes_and_no_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    _, text = Tokens.make(file, "night")
    assert json.loads(file.read_text()) == {"night": hashlib.sha256(text.encode()).hexdigest()}
    assert Tokens.read(file).who(json.loads(file.read_text())["night"]) is None
    assert [one.name for one in tmp_path.iterdir()] == ["tokens.json"]


def test_a_token_has_256_random_bits(tmp_path: Path) -> None:
    found = {Tokens.temporary()[1] for _ in range(100)}
    assert len(found) == 100
    assert {len(one) for one in found} == {43}  # 43 · 6 bits = 258, of which 256 count
    assert set("".join(found)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_every_known_hash_is_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the time does not tell how much was right cannot be measured here; that the right function is used can."""
    compared = []

    def counted(one: str, other: str) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    tokens = Tokens({name: hashlib.sha256(name.encode()).hexdigest() for name in "abc"})
    monkeypatch.setattr(access, "hmac", type("hmac", (), {"compare_digest": staticmethod(counted)}))
    assert tokens.who("a") == "a"
    assert len(compared) == 3 and {len(one) for pair in compared for one in pair} == {64}


@POSIX
def test_the_file_is_private(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    before = os.umask(0)
    try:
        Tokens.make(file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for mode in (0o640, 0o604, 0o620, 0o601):
        file.chmod(mode)
        with pytest.raises(BadInput, match="chmod 600"):
            Tokens.read(file)
        with pytest.raises(BadInput, match="chmod 600"):
            Tokens.make(file, "another")


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "{}", '{"a": 1}', '{"a": "abc"}', '{"=a": "%s"}' % ("0" * 64), '"a"', "[" * 100_000, "\xff"],
)
def test_another_file_is_no_file_of_tokens(text: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    file.touch(mode=0o600)
    file.write_text(text, encoding="latin-1")
    with pytest.raises(BadInput, match=r"no file of tokens|nobody could log in"):
        Tokens.read(file)


def test_a_long_file_a_link_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        Tokens.read(tmp_path / "nothing")
    with pytest.raises(BadInput):
        Tokens.read(tmp_path)
    long = tmp_path / "long"
    long.touch(mode=0o600)
    long.write_bytes(b" " * (access.MOST + 1))
    with pytest.raises(BadInput, match="too long"):
        Tokens.read(long)
    Tokens.make(tmp_path / "tokens.json")
    (tmp_path / "link").symlink_to(tmp_path / "tokens.json")
    for refused in (Tokens.read, Tokens.make):
        with pytest.raises(BadInput):
            refused(tmp_path / "link")


@POSIX
def test_a_pipe_does_not_stop_the_program(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(BadInput, match="no regular file"):
        Tokens.read(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["", " a", "=1+1", "+a", "-a", "@a", "_a", "a\nb", "a,b", 'a"b', "a" * 65, "\ud800"])
def test_names_that_could_mislead_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="begins with a letter or a digit"):
        Tokens.make(tmp_path / "tokens.json", name)
    assert not (tmp_path / "tokens.json").exists()


def test_a_name_has_one_token(tmp_path: Path) -> None:
    _, text = Tokens.make(tmp_path / "tokens.json", "zoë@ward-3.org")
    with pytest.raises(BadInput, match="remove it first"):
        Tokens.make(tmp_path / "tokens.json", "zoë@ward-3.org")
    assert Tokens.read(tmp_path / "tokens.json").who(text) == "zoë@ward-3.org"


def test_a_removed_token_stops_at_once_in_a_running_service(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    _, one = Tokens.make(file, "one")
    running, other = Tokens.make(file, "other")
    remove_token(file, "one")
    assert running.who(one) is None and running.who(other) == "other"
    _, again = Tokens.make(file, "one")
    assert running.who(again) == "one" and running.who(one) is None
    with pytest.raises(BadInput, match="did you mean 'other'"):
        remove_token(file, "othr")


def test_no_token_works_when_the_file_cannot_be_read_any_more(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    running, text = Tokens.make(file, "one")
    kept = file.read_bytes()
    file.write_bytes(b"damaged")
    assert running.who(text) is None
    file.unlink()
    assert running.who(text) is None
    access.write_private(file, kept)
    assert running.who(text) == "one"


@POSIX
def test_no_token_works_when_the_file_became_readable_by_others(tmp_path: Path) -> None:
    running, text = Tokens.make(tmp_path / "tokens.json", "one")
    (tmp_path / "tokens.json").chmod(0o644)
    assert running.who(text) is None


def test_a_temporary_token_needs_no_file() -> None:
    tokens, text = Tokens.temporary()
    assert tokens.who(text) == "local" and Tokens.temporary()[0].who(text) is None


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    limits = Limits(rate=5, burst=20, clock=clock)
    assert [limits.wait("a") for _ in range(20)] == [0.0] * 20
    assert limits.wait("a") == pytest.approx(0.2)
    assert limits.wait("b") == 0.0
    clock.now += 0.2
    assert limits.wait("a") == 0.0 and limits.wait("a") > 0
    clock.now += 3600
    assert sum(limits.wait("a") == 0 for _ in range(100)) == 20


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0.01, 100),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=1, max_size=200),
)
def test_no_more_than_burst_and_rate_allow(rate: float, burst: int, steps: list[tuple[float, bool]]) -> None:
    """In every span of time. And who waits as long as was said is let in."""
    clock = Clock()
    limits = Limits(rate=rate, burst=burst, clock=clock)
    allowed: list[float] = []
    for seconds, patient in steps:
        clock.now += seconds
        wait = limits.wait("a")
        if wait > 0 and patient:
            clock.now += wait
            wait = limits.wait("a")
            assert wait == 0
        if wait == 0:
            allowed.append(clock.now)
    for first in range(len(allowed)):
        for last in range(first, len(allowed)):
            assert last - first + 1 <= burst + (allowed[last] - allowed[first]) * rate + 0.01


def test_wrong_tokens_block_an_address_for_a_while() -> None:
    clock = Clock()
    limits = Limits(failures=10, minute=60, clock=clock)
    for _ in range(10):
        assert limits.blocked("10.0.0.1") == 0
        limits.failed("10.0.0.1")
    assert limits.blocked("10.0.0.1") == pytest.approx(6)
    assert limits.blocked("10.0.0.2") == 0
    clock.now += 6
    assert limits.blocked("10.0.0.1") == 0
    limits.failed("10.0.0.1")
    assert limits.blocked("10.0.0.1") > 0
    clock.now += 60
    assert limits.blocked("10.0.0.1") == 0


def test_the_addresses_of_one_customer_are_one() -> None:
    limits = Limits(failures=1)
    limits.failed("2001:db8:1:2::1")
    assert limits.blocked("2001:db8:1:2:ffff::9") > 0
    assert limits.blocked("2001:db8:1:3::1") == 0
    limits.failed("::ffff:10.0.0.1")
    assert limits.blocked("10.0.0.1") > 0
    limits.failed("fe80::1%eth0")
    limits.failed("no address" * 1000)
    assert limits.blocked("no address" * 1000) > 0


def test_the_memory_is_bounded() -> None:
    clock = Clock()
    limits = Limits(failures=2, clock=clock)
    for n in range(25_000):
        limits.failed(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(limits._failures._levels) == 10_000
    clock.now += 3600
    limits.failed("192.0.2.1")
    assert len(limits._failures._levels) == 1  # those that are full again are forgotten


def test_threads_do_not_get_more() -> None:
    limits = Limits(rate=0.001, burst=500)
    got: list[int] = []

    def ask() -> None:
        got.append(sum(limits.wait("a") == 0 for _ in range(200)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 500


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": float("nan")}, {"burst": 0}, {"failures": 0}, {"minute": 0}])
def test_limits_that_allow_nothing_are_refused(wrong: dict) -> None:
    with pytest.raises(BadInput):
        Limits(**wrong)
