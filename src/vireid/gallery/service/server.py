"""`vireid gallery serve`: the service as a process, with a graceful stop and the removal of what is too old."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from vireid.data.errors import BadInput
from vireid.data.settings import options
from vireid.gallery.private import others_may_use
from vireid.gallery.scores import STRANGERS
from vireid.gallery.service.access import Tokens

HOUR = 3600.0
DAY = timedelta(days=1).total_seconds()
LOCAL = ("127.0.0.1", "localhost", "::1")

log = logging.getLogger(__name__)


@options
class ServeOptions:
    """What `vireid gallery serve` was asked to do.

    Attributes:
        index: a folder, or `milvus://host:port/name`.
        host: the address to listen on.
        port: the port; 0 for a free one.
        model: where the model is now, if not where it was when the index was built.
        state: the private folder of this machine, for an index in Milvus.
        tokens: the file of named tokens. None for one token that lives as long as the process.
        no_token: whether no token is needed, on this machine only.
        allow_host: more names of the host that are served.
        require_reason: whether a search must say why it is made.
        strangers: strangers up to which a search is `likely`.
        keep_audit: days after which entries of the audit log are removed.
        keep_rows: days after which pictures are removed; None to keep them.
        rate: searches a second of each token.
        page: whether the page for people is served too.
    """

    index: str
    host: str = "127.0.0.1"
    port: Annotated[int, Interval(ge=0, le=65535)] = 8000
    model: Path | None = None
    state: Path | None = None
    tokens: Path | None = None
    no_token: bool = False
    allow_host: tuple[str, ...] = ()
    require_reason: bool = False
    strangers: Annotated[float, Interval(gt=0, le=1)] = STRANGERS
    keep_audit: Annotated[float, Interval(gt=0, le=36_500)] = 90
    keep_rows: Annotated[float, Interval(gt=0, le=36_500)] | None = None
    rate: Annotated[float, Interval(gt=0, le=1000)] = 5
    page: bool = True

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        return is_local(self.host)


def serve(asked: ServeOptions, say: Callable[[str], None] = print) -> None:
    """Serve an index until SIGTERM or SIGINT.

    Args:
        asked: what to serve.
        say: is told the address, with the token in its fragment, when it can be opened.

    Raises:
        BadInput: a package is missing, the options contradict each other, the index or its model cannot be used, or the
            address is taken.
    """
    check(asked)
    libraries()
    from vireid.gallery.index import open_index
    from vireid.gallery.service.engine import Engine, Serving
    from vireid.gallery.service.process import Server
    from vireid.gallery.service.routes import Access, Service

    tokens, text = _tokens(asked)
    listening = listen(asked.host, asked.port)
    try:
        index = open_index(serving_url(asked.index), model=asked.model, state=asked.state)
        try:
            serving = Serving(
                page=asked.page,
                require_reason=asked.require_reason,
                threshold=asked.strangers,
                rate=asked.rate,
                keep_audit=asked.keep_audit,
            )
            engine = Engine(index, serving)
        except BaseException:
            index.close()
            raise
        service = Service(engine, Access(hosts_of(asked), tokens))
        keeper = Keeper(asked, engine)
        server = Server(service, lambda: say(_address(asked, listening, text)))
        with keeper:
            server.run([listening])
    finally:
        listening.close()
    if engine.worker.trouble is not None:
        raise engine.worker.trouble


def check(asked: ServeOptions) -> None:
    """Refuse options that contradict each other or would open the gallery to everybody.

    Raises:
        BadInput: with a sentence that says what to do.
    """
    if asked.no_token and asked.tokens is not None:
        raise BadInput("--no-token and --tokens contradict each other: leave out one of them")
    if asked.local:
        return
    if asked.tokens is None:
        raise BadInput(
            f"{asked.host} can be reached from other machines, so people need tokens: name their file with --tokens, "
            "and put a server with TLS in front, because this one does not encrypt what it sends"
        )
    if not asked.allow_host and _is_any(asked.host):
        raise BadInput(
            f"{asked.host} is every address of this machine: say with --allow-host NAME which names people type"
        )


def libraries() -> None:
    """Check that the extra packages are installed.

    Raises:
        BadInput: one is missing.
    """
    from importlib.util import find_spec

    for name in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        if find_spec(name) is None:
            raise BadInput(f"serving needs {name}: pip install 'vireid[serve]'")


def is_local(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _is_any(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_unspecified
    return host == ""


def hosts_of(asked: ServeOptions) -> frozenset[str]:
    """The names in the Host header that are served."""
    from vireid.gallery.service.gate import host_name

    own = LOCAL if asked.local else ()
    listening = () if _is_any(asked.host) else (asked.host,)
    return frozenset(host_name(one) for one in (*own, *listening, *asked.allow_host))


def serving_url(url: str) -> str:
    """The URL with which an index is opened to be served: reads of Milvus may miss the last seconds, and are quick."""
    if "://" not in url or "consistency=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}consistency=bounded"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        BadInput: the address is taken, or is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise BadInput(f"{host} is no address of this machine: {error.strerror or error}") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(2048)
    except OSError as error:
        made.close()
        raise BadInput(f"cannot listen on {host}, port {port}: {error.strerror or error}; try another --port") from None
    return made


def _tokens(asked: ServeOptions) -> tuple[Tokens | None, str]:
    """The tokens, and the text of one that the address can show."""
    if asked.no_token:
        return None, ""
    if asked.tokens is not None:
        return Tokens.read(asked.tokens), ""
    return Tokens.temporary()


def others_can_read(index: str) -> bool:
    """Whether an index is a folder that is open to other users of the machine."""
    from vireid.gallery.index import is_url

    return not is_url(index) and others_may_use(os.stat(index))


def _address(asked: ServeOptions, listening: socket.socket, token: str) -> str:
    """The sentences that are printed when the service can be used."""
    host = f"[{asked.host}]" if ":" in asked.host else asked.host
    at = f"http://{host}:{listening.getsockname()[1]}/"
    lines = [f"{at}#token={token}" if token else at]
    if not asked.local:
        lines.append("Other machines can reach this address. Put a server with TLS in front of it.")
    if not asked.page:
        lines.append("Only the API is served, and no page.")
    if others_can_read(asked.index):
        lines.append(f"Other users of this machine can read {asked.index}, which has what finds people: chmod 700 it.")
    if token:
        lines.append("Whoever has this address can search. It is valid until the service ends. Stop it with Ctrl+C.")
    return "\n".join(lines)


class Keeper:
    """A thread that removes what is too old, at the start and hourly: entries of the audit log, and pictures.

    While another process writes into the folder, pictures cannot be removed; it tries again a minute later.
    """

    def __init__(self, asked: ServeOptions, engine: Any, *, every: float = HOUR, again: float = 60.0) -> None:
        self._asked, self._engine, self._every, self._again = asked, engine, every, again
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(1.0)

    def once(self) -> bool:
        """Remove what is too old now.

        Returns:
            Whether all of it was removed.
        """
        done = True
        for remove in (self._audit, self._rows):
            try:
                remove()
            except BadInput as error:
                log.warning("what is too old was not removed, which is tried again: %s", error)
                done = False
            except Exception:
                log.exception("what is too old was not removed, which is tried again")
                done = False
        return done

    def _run(self) -> None:
        while not self._ended.is_set():
            self._ended.wait(self._every if self.once() else self._again)

    def _audit(self) -> None:
        self._engine.audit.expire()

    def _rows(self) -> None:
        if self._asked.keep_rows is None:
            return
        from vireid.gallery.index import open_index
        from vireid.gallery.prune import expire

        before = int((time.time() - self._asked.keep_rows * DAY) * 1000)
        # An index of its own: the lock of the writer is let go of at its end, so that others can build again.
        with open_index(self._asked.index, model=self._asked.model, state=self._asked.state) as index:
            expire(index, before)
