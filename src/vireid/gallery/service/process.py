"""The service in uvicorn: connections that may not be slow, and a stop that lets requests finish that have begun."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vireid.gallery.service.gate import SECURITY
from vireid.gallery.service.problems import MEDIA_TYPE, Refusal
from vireid.gallery.service.routes import Service

GRACE = 6.0
"""Seconds for which requests that have begun may go on when the service is stopped. The rest needs up to 3 more."""
HEAD = 10.0
"""Seconds in which the head of a request must be complete."""
IDLE = 10
"""Seconds after which a connection without a request is closed."""
HEAD_BYTES = 64 * 2**10
"""Most bytes of the head of a request."""


class Connection(H11Protocol):
    """A connection that is closed if the head of a request does not come in time. uvicorn would wait for ever."""

    seconds = HEAD

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late: asyncio.TimerHandle | None = None
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Tell that this is no HTTP, as all other refusals are told."""
        refusal = Refusal("bad-request", "This is no valid HTTP request.")
        body = refusal.body()
        headers = {**SECURITY, "Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
        lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        with contextlib.suppress(h11.LocalProtocolError):  # a response has begun: nothing can be told any more
            start = self.conn.send(h11.Response(status_code=refusal.status, headers=lines, reason=b"Bad Request"))
            rest = [self.conn.send(h11.Data(data=body)), self.conn.send(h11.EndOfMessage())]
            self.transport.write(b"".join(part for part in (start, *rest) if part))
        self.transport.close()

    def _watch(self) -> None:
        """Begin to wait for a head, or stop waiting because it is there."""
        waiting = self.conn.their_state is h11.IDLE and not self.transport.is_closing()
        if not waiting:
            self._forget()
        elif self._late is None:
            self._late = self.loop.call_later(self.seconds, self.transport.close)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Server(uvicorn.Server):
    """A server for one service.

    At SIGTERM or SIGINT it refuses new requests with 503, lets those finish that have begun, and ends. The process goes
    on after `run`, so its exit code is its own.

    Args:
        service: what is served.
        ready: called once, when searches are answered.
    """

    def __init__(self, service: Service, ready: Callable[[], None] | None = None) -> None:
        config = uvicorn.Config(
            service.gate,
            http=Connection,
            ws="none",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        super().__init__(config)
        self._service, self._ready = service, ready
        service.engine.failed = self.stop

    def stop(self) -> None:
        """End soon. Any thread may call it."""
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        if self._ready is not None and self._service.engine.worker.ready.is_set():
            self._ready()
            self._ready = None
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse, wait, end."""
        self._service.gate.stopping = True
        until = time.monotonic() + GRACE
        while self._service.gate.running and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal. uvicorn would send it to the process again, which would end as if it was killed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
