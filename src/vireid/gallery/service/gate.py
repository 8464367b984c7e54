"""What stands before every route: names of the host, tokens, limits of bodies, headers of security, counting."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vireid.gallery.service.access import Limits, Tokens
from vireid.gallery.service.problems import MEDIA_TYPE, Refusal

UPLOAD = 10 * 2**20
"""Most bytes of the pictures of a search, all together."""
BODY = 64 * 2**10
"""Most bytes of any other body, and of what a form adds to its pictures."""
DRAIN = 16 * 2**20
"""Bytes of a refused body that are read and thrown away, so that the sender reads the refusal."""
CONCURRENT = 256
"""Most requests that are answered at a time."""
PROBES = ("/healthz", "/readyz")
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""The headers of every response."""

log = logging.getLogger(__name__)


@dataclass
class Rules:
    """What the gate lets through.

    Attributes:
        hosts: names in the Host header that are served, in lower case and without a port. A page of another name, which
            its owner lets point to this machine, cannot use the service.
        tokens: None if no token is needed.
        limits: of wrong tokens.
        public: paths that need no token.
        upload: most bytes of the pictures of a search.
        body_seconds: a body must be complete after this time.
        idle_seconds: and a part of it must come within this time.
    """

    hosts: frozenset[str]
    tokens: Tokens | None
    limits: Limits
    public: frozenset[str] = frozenset(PROBES)
    upload: int = UPLOAD
    body_seconds: float = 60.0
    idle_seconds: float = 10.0


@dataclass
class Body:
    """How much of a request's body was read, with its limits."""

    most: int
    until: float
    idle: float
    complete: bool
    expects: bool  # the sender waits for permission, which reading gives
    read: int = 0
    gone: bool = False
    begun: bool = False

    async def next(self, receive: Receive, *, check: bool = True) -> Message:
        """The next message.

        Raises:
            Refusal: the body is too large or comes too slowly.
        """
        self.begun = True
        if self.complete or self.gone:
            return await receive()
        left = min(self.idle, self.until - time.monotonic())
        try:
            async with asyncio.timeout(max(left, 0)):
                message = await receive()
        except TimeoutError:
            self.gone = True
            raise Refusal("timeout", "The body of the request came too slowly.") from None
        if message["type"] != "http.request":
            self.gone = True
            return message
        self.read += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if check and self.read > self.most:
            raise too_large(self.most)
        return message

    async def drain(self, receive: Receive) -> None:
        """Read what is left, and forget it. A sender that is not finished does not look at the answer."""
        if self.complete or self.gone or (self.expects and not self.begun):
            return
        self.until = min(self.until, time.monotonic() + 3)
        with contextlib.suppress(Refusal):
            while not self.complete and not self.gone and self.read < DRAIN:
                await self.next(receive, check=False)


class Gate:
    """The application with everything that stands before it. It is the ASGI application that the server runs.

    Attributes:
        running: requests that are being answered.
        stopping: from now on, requests are refused.
    """

    def __init__(self, app: ASGIApp, rules: Rules, count: Callable[[str, int, float], None]) -> None:
        self._app, self._rules, self._count = app, rules, count
        self.running = 0
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, answer = time.monotonic(), _Answer(send)
        headers = Headers(scope=scope)
        body = self._body(scope, headers)
        answer.before = lambda: body.drain(receive)
        answer.finished = lambda: body.complete
        self.running += 1
        try:
            try:
                self._check(scope, headers)
                if (length := headers.get("content-length", "")).isdigit() and int(length) > body.most:
                    raise too_large(body.most)
                await self._app(scope, lambda: body.next(receive), answer.send)
            except Refusal as refusal:
                await _respond(refusal, scope, receive, answer)
            except asyncio.CancelledError:  # by the server, at the end of its patience
                await _respond(stopping(), scope, receive, answer)
                raise
            except Exception:  # the application has told the client, if it could
                log.exception("a request failed")
                await _respond(mistaken(), scope, receive, answer)
        finally:
            self.running -= 1
            route = scope.get("route")
            self._count(getattr(route, "path", "other"), answer.status or 499, time.monotonic() - began)

    def _body(self, scope: Scope, headers: Headers) -> Body:
        search = (scope["method"], scope["path"]) == ("POST", "/v1/searches")
        most = BODY + (self._rules.upload if search else 0)
        none = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
        expects = headers.get("expect", "").lower() == "100-continue"
        return Body(most, time.monotonic() + self._rules.body_seconds, self._rules.idle_seconds, none, expects)

    def _check(self, scope: Scope, headers: Headers) -> None:
        path = scope["path"]
        if path in PROBES:
            return
        if host_name(headers.get("host", "")) not in self._rules.hosts:
            raise Refusal(
                "unknown-host",
                "This name of the host is not served: start the service with --allow-host NAME.",
            )
        if self.stopping:
            raise stopping()
        if self.running > CONCURRENT:
            raise Refusal("busy", "Too many requests are being answered. Try again soon.", retry=1)
        if path in self._rules.public:
            return
        if (origin := headers.get("origin")) is not None and _of_origin(origin) not in self._rules.hosts:
            raise Refusal("forbidden", "Pages of other addresses may not use this service.")
        scope.setdefault("state", {})["who"] = self._who(scope, headers)

    def _who(self, scope: Scope, headers: Headers) -> str:
        """The name of the token's owner."""
        if self._rules.tokens is None:
            return "local"
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and token.strip():
            if (who := self._rules.tokens.who(token.strip())) is not None:
                return who
            address = scope["client"][0] if scope.get("client") else ""
            if (seconds := self._rules.limits.blocked(address)) > 0:
                raise Refusal("too-many", "Too many wrong tokens came from this address.", retry=seconds)
            self._rules.limits.failed(address)
            raise Refusal("unauthenticated", "Nobody has this token.")
        raise Refusal("unauthenticated", "A token is needed, in the header: Authorization: Bearer TOKEN.")


class _Answer:
    """A response on its way, with the headers that each has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.before: Callable = _nothing
        self.finished: Callable[[], bool] = lambda: True

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self.before()
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
            if not self.finished():
                headers["Connection"] = "close"
        await self._send(message)


def too_large(most: int) -> Refusal:
    """The refusal of a body with more bytes than may be."""
    size = f"{most // 2**20} MB" if most >= 2**20 else f"{most // 2**10} kB"
    return Refusal("too-large", f"The body of this request may have up to {size}.")


def stopping() -> Refusal:
    """The refusal of a service that is being stopped."""
    return Refusal("stopping", "The service is being stopped.", retry=5, headers={"Connection": "close"})


def mistaken() -> Refusal:
    """The refusal when something unexpected happened. What it was is for the log only."""
    return Refusal("internal", "The service made a mistake, which is in its log.")


def response(refusal: Refusal) -> Response:
    """A refusal as a response."""
    return Response(refusal.body(), refusal.status, refusal.headers, media_type=MEDIA_TYPE)


async def _respond(refusal: Refusal, scope: Scope, receive: Receive, answer: _Answer) -> None:
    if not answer.status:  # else the response has begun, and nothing can be added
        await response(refusal)(scope, receive, answer.send)


def _of_origin(origin: str) -> str:
    """The name in an Origin header; empty if it has none, as `null`."""
    with contextlib.suppress(ValueError):
        return host_name(urlsplit(origin).netloc)
    return ""


async def _nothing() -> None:
    return


def host_name(host: str) -> str:
    """The name in a Host header or an origin, in lower case and without a port.

    >>> host_name("Gallery.example:8443"), host_name("[::1]:8000"), host_name("::1")
    ('gallery.example', '::1', '::1')
    """
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.partition(":")
    return name if colon and port.isascii() and port.isdigit() else host
