"""`vireid gallery serve` as a process: how it starts and stops, and what it answers while others write."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")

from tests.gallery import servers
from tests.gallery.rows import row
from tests.gallery.served import picture
from tests.gallery.station import START, station
from tests.processes import program, said, start, wait
from vireid.cli.gallery.serve import days
from vireid.cli.main import main
from vireid.data.errors import BadInput
from vireid.gallery.index import open_index
from vireid.gallery.row import Where
from vireid.gallery.service import audit as audits
from vireid.gallery.service.access import Tokens, remove_token
from vireid.gallery.service.audit import Audit
from vireid.gallery.service.engine import Engine
from vireid.gallery.service.server import Keeper, ServeOptions, check, hosts_of, is_local, listen, serving_url

FILES = {"image": ("x", picture(grey=True))}


@dataclass
class Process:
    """A running `vireid gallery serve`."""

    process: Any
    folder: Path
    url: str
    token: str

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token or 'none'}", "Connection": "close"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)


@contextlib.contextmanager
def serving(folder: Path, index: str | Path, *options: str) -> Iterator[Process]:
    """Start the program, and wait until it says its address."""
    (process,) = start(1, folder, program, ["gallery", "serve", str(index), "--port", "0", *options])
    try:
        address = None
        until = time.monotonic() + 200
        while address is None:
            assert process.is_alive(), said(folder, 0)
            assert time.monotonic() < until, said(folder, 0)
            time.sleep(0.05)
            printed = folder / "rank0" / "stdout"
            text = printed.read_text() if printed.exists() else ""
            address = re.match(r"(http://\S+?)(?:#token=(\S+))?\n", text)
        yield Process(process, folder, address[1], address[2] or "")
    finally:
        if process.is_alive():
            process.kill()
        process.join(10)


# --- the stop ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_middle_of_requests_delivers_what_was_begun_and_exits_with_0(own, tmp_path, number):
    delivered, refused, ended = [], [], threading.Event()

    def ask(running: Process) -> None:
        while not ended.is_set():
            with running.client() as client, contextlib.suppress(httpx.TransportError):
                response = client.post("/v1/searches", files=FILES)
                (delivered if response.status_code == 200 else refused).append(response)

    with (
        serving(tmp_path / "said", own, "--rate", "1000") as running,
        ThreadPoolExecutor(8) as pool,
    ):
        for _ in range(8):
            pool.submit(ask, running)
        until = time.monotonic() + 100
        while len(delivered) < 20:
            assert time.monotonic() < until
            time.sleep(0.02)
        began = time.monotonic()
        os.kill(running.process.pid, number)
        assert wait([running.process], seconds=15) == [0]
        assert time.monotonic() - began < 10
        ended.set()
    assert {response.status_code for response in refused} <= {429, 503}
    with Audit(own) as log:
        entries = list(log.entries())
    # An entry is written before its answer is sent: so what was begun has come to its client.
    assert len(entries) == len(delivered)
    assert "Traceback" not in said(tmp_path / "said", 0)


@pytest.mark.process
def test_the_real_program_ends_with_0_and_without_complaints(own):
    command = [sys.executable, "-m", "vireid.cli.main", "gallery", "serve", str(own), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        address = running.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#token=[\w-]{43}\n", address)
        assert "Stop it with Ctrl+C" in running.stdout.readline()
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=20)
        assert (running.returncode, errors) == (0, "")
        assert time.monotonic() - began < 10


@pytest.mark.slow
@pytest.mark.process
def test_after_a_kill_every_answer_that_was_delivered_is_in_the_audit_log(own, tmp_path):
    delivered = []
    with serving(tmp_path / "said", own, "--rate", "1000") as running:

        def ask() -> None:
            with running.client() as client, contextlib.suppress(httpx.TransportError):
                while True:
                    response = client.post("/v1/searches", files=FILES)
                    if response.status_code == 200:
                        delivered.append(tuple(one["picture"] for one in response.json()["matches"]))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        while len(delivered) < 12:
            time.sleep(0.02)
        running.process.kill()
        for thread in threads:
            thread.join(20)
    with Audit(own) as log:
        shown = [one.shown for one in log.entries()]
    assert len(shown) >= len(delivered)
    for one in delivered:
        assert one in shown
    with serving(tmp_path / "again", own) as running, running.client() as client:
        assert client.post("/v1/searches", files=FILES).status_code == 200


# --- others write -----------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_while_a_build_adds_rows_in_another_process_every_answer_is_right(worlds, runs, tmp_path):
    world, run, index = worlds["sysu-mm01"], runs["sysu-mm01"], tmp_path / "index"
    pictures = tmp_path / "pictures"
    some = sorted(world.rglob("*.jpg"))
    assert len(some) >= 60
    for place, files in (("day1", some[:20]), ("day2", some)):
        (pictures / place).mkdir(parents=True)
        for n, file in enumerate(files):
            shutil.copyfile(file, pictures / place / f"{n:03}.jpg")
    build = ["gallery", "build", str(index), "--model", str(run), "--modality", "infrared", "--workers", "0"]
    assert main([*build, "--batch", "4", str(pictures / "day1")]) == 0
    counts, listed = [], []
    with serving(tmp_path / "said", index, "--rate", "1000") as running, running.client() as client:
        (builder,) = start(1, tmp_path / "built", program, [*build, "--batch", "4", str(pictures / "day2")])
        while builder.is_alive() or not counts or counts[-1] != 20 + len(some):
            response = client.post("/v1/searches", files=FILES, data={"top": "100"})
            assert response.status_code == 200, response.text
            got = response.json()
            counts.append(got["searched"]["infrared"])
            assert len(got["matches"]) == min(100, counts[-1])
            cosines = [one["cosine"] for one in got["matches"]]
            assert cosines == sorted(cosines, reverse=True)
            seen = client.get(f"/v1/pictures/{got['matches'][0]['picture']}/thumbnail")
            assert seen.status_code == 200
            listed.append(client.get("/v1/facets").json()["pictures"]["infrared"])
            assert len(counts) < 1000
        assert wait([builder]) == [0], said(tmp_path / "built", 0)
        assert counts == sorted(counts)
        assert counts[0] == listed[0] == 20
        # Rows that are taken away by another process are not found any more.
        remove = ["gallery", "prune", str(index), "--source", str(pictures / "day2")]
        assert wait(start(1, tmp_path / "pruned", program, remove)) == [0], said(tmp_path / "pruned", 0)
        response = client.post("/v1/searches", files=FILES, data={"top": "100"})
        assert response.json()["searched"] == {"visible": 0, "infrared": 20}
        assert len(response.json()["matches"]) == 20


@pytest.mark.process
@pytest.mark.skipif(not servers.LITE.exists(), reason="milvus-lite is not installed")
def test_an_index_in_milvus_is_served(worlds, runs, tmp_path, monkeypatch):
    pytest.importorskip("pymilvus")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    state = tmp_path / "state"
    with servers.lite(tmp_path / "data") as (port, _):
        url = f"milvus://127.0.0.1:{port}/station?thumbnails={tmp_path / 'thumbnails'}"
        with station(url, runs["sysu-mm01"], worlds["sysu-mm01"]) as index:
            rows = {one.id: one for one in index.store.iterate()}
            with (
                serving(tmp_path / "said", url, "--state", str(state)) as running,
                running.client() as client,
            ):
                assert client.get("/v1/facets").json()["pictures"] == {"visible": 24, "infrared": 12}
                given = {"top": "100", "cameras": ["1", "3"], "since": "2026-03-01T03:53:20Z"}
                response = client.post("/v1/searches", files=FILES, data=given)
                assert response.status_code == 200, response.text
                shown = {one["picture"] for one in response.json()["matches"]}
                passing = (one for one in rows.values() if one.time >= START + 2 * 3_600_000)
                assert shown == {one.id for one in passing if one.camera in ("1", "3")}
                some = shown.pop()
                thumbnail = client.get(f"/v1/pictures/{some}/thumbnail")
                assert thumbnail.content == index.store.thumbnail(some)
                assert 'vireid_gallery_rows{modality="infrared"} 12.0' in client.get("/metrics").text
                os.kill(running.process.pid, signal.SIGTERM)
                assert wait([running.process], seconds=20) == [0]
    assert sorted(one.name for one in state.iterdir() if one.suffix == ".sqlite") == ["audit.sqlite", "feedback.sqlite"]


def test_what_is_too_old_is_removed_and_then_others_can_write(own):
    before = time.time() - START / 1000 - 10 * 3600  # pictures are an hour apart: those of the first ten hours go
    asked = ServeOptions(str(own), keep_rows=before / 86_400)
    engine = Engine(open_index(own))
    try:
        gone = next(engine.store.iterate(Where(until=START + 3_600_000)))
        now = audits.time.time()
        engine.audit.record("local", "a" * 64, {}, [], None)
        engine.audit._clock = lambda: now + 91 * 86_400
        keeper = Keeper(asked, engine)
        assert keeper.once()
        assert engine.store.count() in (25, 26)
        assert engine.store.thumbnail(gone.id) is None
        assert list(engine.audit.entries()) == []
        with open_index(own) as builder:
            builder.store.upsert([row(0, next(engine.store.iterate(vectors=True)).vector)])
            # While another writes, it is tried again later.
            engine.audit.expire()
            later = Keeper(ServeOptions(str(own), keep_rows=0.001), engine)
            assert not later.once()
        assert later.once()
        assert [one.time for one in engine.store.iterate()] == [None]
    finally:
        engine.close(1)


def test_the_thread_removes_at_once_and_again_and_ends(own):
    engine = Engine(open_index(own))
    try:
        calls = []
        keeper = Keeper(ServeOptions(str(own)), engine, every=0.02, again=0.02)
        keeper.once = lambda: calls.append(1) or len(calls) % 2 == 0  # type: ignore[method-assign]
        with keeper:
            until = time.monotonic() + 10
            while len(calls) < 4:
                assert time.monotonic() < until
                time.sleep(0.01)
        count = len(calls)
        time.sleep(0.1)
        assert len(calls) == count
    finally:
        engine.close(1)


# --- options ----------------------------------------------------------------------------------------------------------


def refusal(*given: str, capsys: pytest.CaptureFixture) -> str:
    assert main(["gallery", "serve", *given]) == 2
    return capsys.readouterr().err


def test_what_would_open_the_gallery_to_everybody_is_refused(own, tmp_path, capsys):
    open_to_all = refusal(str(own), "--host", "0.0.0.0", capsys=capsys)
    assert "--tokens" in open_to_all
    assert "TLS" in open_to_all
    assert "--tokens" in refusal(str(own), "--host", "192.168.0.7", "--no-token", capsys=capsys)
    Tokens.make(tmp_path / "tokens")
    named = ("--tokens", str(tmp_path / "tokens"))
    assert "--allow-host" in refusal(str(own), "--host", "::", *named, capsys=capsys)
    assert "contradict" in refusal(str(own), "--no-token", *named, capsys=capsys)
    check(ServeOptions(str(own), host="0.0.0.0", tokens=tmp_path / "tokens", allow_host=("gallery.example",)))
    check(ServeOptions(str(own), host="localhost", no_token=True))
    (tmp_path / "tokens").chmod(0o644)
    assert "chmod 600" in refusal(str(own), *named, capsys=capsys)


def test_mistakes_are_told_in_one_sentence(own, tmp_path, capsys):
    assert "no gallery" in refusal(str(tmp_path / "nothing"), "--port", "0", capsys=capsys)
    with contextlib.closing(listen("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "--port" in refusal(str(own), "--port", str(port), capsys=capsys)
    assert "no address" in refusal(str(own), "--host", "no.such.host.invalid", *_tokens(tmp_path), capsys=capsys)
    for option, value in (("--port", "70000"), ("--keep-rows", "30"), ("--keep-audit", "0d"), ("--rate", "0")):
        assert value in refusal(str(own), option, value, capsys=capsys)
    assert "--tokens" in refusal(str(own), "--new-token", "ward 3", capsys=capsys)


def _tokens(folder: Path) -> tuple[str, str]:
    Tokens.make(folder / "tokens")
    return "--tokens", str(folder / "tokens")


def test_a_missing_package_is_told(own, capsys, monkeypatch):
    usual = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastapi" else usual(name))
    assert "pip install 'vireid[serve]'" in refusal(str(own), capsys=capsys)


def test_a_model_that_is_not_there_ends_the_service_with_2(own, tmp_path, capsys, monkeypatch):
    """The index opens, the address is bound, and only then the model is looked for."""
    said_of_it = refusal(str(own), "--port", "0", "--model", str(tmp_path / "moved"), capsys=capsys)
    assert "--model" in said_of_it
    assert "http://" not in capsys.readouterr().out


def test_a_token_is_made_shown_once_and_can_be_taken_away(own, tmp_path, capsys):
    file = tmp_path / "tokens"
    assert main(["gallery", "serve", str(own), "--tokens", str(file), "--new-token", "ward 3"]) == 0
    token = capsys.readouterr().out.split("\n")[1]
    assert Tokens.read(file).who(token) == "ward 3"
    assert token not in file.read_text()
    tokens = Tokens.read(file)
    Tokens.make(file, "other")
    remove = ["gallery", "serve", str(own), "--tokens", str(file), "--remove-token"]
    assert main([*remove, "ward 3"]) == 0
    assert tokens.who(token) is None
    assert Tokens.read(file).names == ("other",)
    assert main([*remove, "ward 3"]) == 2
    assert "other" in capsys.readouterr().err


@pytest.mark.process
def test_named_tokens_are_used_and_the_address_shows_none(own, tmp_path):
    _, token = Tokens.make(tmp_path / "tokens", "ward 3")
    own.chmod(0o755)
    with serving(tmp_path / "said", own, "--tokens", str(tmp_path / "tokens"), "--no-page") as running:
        assert running.token == ""
        with running.client() as client:
            assert client.get("/v1/facets").status_code == 401
            assert client.get("/").status_code == 401
            client.headers["Authorization"] = f"Bearer {token}"
            assert client.post("/v1/searches", files=FILES).status_code == 200
            remove_token(tmp_path / "tokens", "ward 3")
            assert client.get("/v1/facets").status_code == 401
        printed = (tmp_path / "said" / "rank0" / "stdout").read_text()
        assert "Only the API" in printed and f"Other users of this machine can read {own}" in printed
    with Audit(own) as log:
        assert [one.who for one in log.entries()] == ["ward 3"]


@pytest.mark.process
def test_without_a_token_only_this_machine_and_no_foreign_page_can_search(own, tmp_path):
    with serving(tmp_path / "said", own, "--no-token") as running:
        assert running.token == "" and "Other users" not in (tmp_path / "said" / "rank0" / "stdout").read_text()
        with httpx.Client(base_url=running.url, trust_env=False) as client:
            assert client.post("/v1/searches", files=FILES).status_code == 200
            foreign = client.post("/v1/searches", files=FILES, headers={"Origin": "http://evil.example"})
            assert foreign.status_code == 403
            assert client.get("/v1/facets", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.1", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.nip.io", False),
    ],
)
def test_which_addresses_are_this_machine_s(host, local):
    assert is_local(host) == local


def test_names_that_are_served():
    assert hosts_of(ServeOptions("x")) == {"127.0.0.1", "localhost", "::1"}
    assert hosts_of(ServeOptions("x", host="127.0.0.2")) == {"127.0.0.1", "localhost", "::1", "127.0.0.2"}
    asked = ServeOptions("x", host="0.0.0.0", allow_host=("Gallery.Example:8443", "[fe80::1]"))
    assert hosts_of(asked) == {"gallery.example", "fe80::1"}


def test_reads_of_milvus_are_bounded_unless_the_url_says_otherwise():
    assert serving_url("station") == "station"
    assert serving_url("milvus://a:1/b") == "milvus://a:1/b?consistency=bounded"
    assert serving_url("milvus://a:1/b?thumbnails=/t") == "milvus://a:1/b?thumbnails=/t&consistency=bounded"
    assert serving_url("milvus://a:1/b?consistency=strong") == "milvus://a:1/b?consistency=strong"


def test_time_spans():
    assert (days("90d"), days("36h"), days("2w")) == (90.0, 1.5, 14.0)
    for wrong in ("", "d", "0d", "-1d", "1.5d", "1y", "１d", "999999d"):
        with pytest.raises(BadInput, match="time span"):
            days(wrong)


def test_it_listens_on_ipv6_too():
    try:
        listening = listen("::1", 0)
    except BadInput:
        pytest.skip("this machine has no IPv6")
    with contextlib.closing(listening):
        assert listening.family == socket.AF_INET6
