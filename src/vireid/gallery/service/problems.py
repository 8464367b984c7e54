"""Refusals of the service: each one is a `application/problem+json` document (RFC 9457) with a sentence for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

MEDIA_TYPE = "application/problem+json"

KINDS: dict[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "unknown-host": (400, "This name is not served"),
    "unauthenticated": (401, "A token is needed"),
    "forbidden": (403, "Not from this page"),
    "not-found": (404, "Not found"),
    "method": (405, "Not with this method"),
    "timeout": (408, "The request came too slowly"),
    "too-large": (413, "Too large"),
    "wrong-type": (415, "Another type of content"),
    "invalid": (422, "A value cannot be used"),
    "unreadable": (422, "The picture cannot be read"),
    "reason-required": (422, "A reason is needed"),
    "too-many": (429, "Too many requests"),
    "busy": (429, "Busy"),
    "internal": (500, "The service made a mistake"),
    "loading": (503, "Not ready yet"),
    "stopping": (503, "Stopping"),
    "unavailable": (503, "The gallery cannot be used now"),
}
"""Word → status and title. The word ends the problem's `type`, `urn:vireid:problem:WORD`."""


class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        kind: one of `KINDS`.
        detail: one sentence for people.
        choices: what would be accepted instead.
        retry: seconds after which the same request may succeed, whole and at least 1; None if it will not.
        headers: more headers of the response.
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        choices: Sequence[str] | None = None,
        retry: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.choices = kind, sentence(detail), choices
        self.status, self.title = KINDS[kind]
        self.headers = dict(headers or {})
        if retry is not None:
            self.headers["Retry-After"] = str(max(1, int(-(-retry // 1))))
        if self.status == HTTPStatus.UNAUTHORIZED:
            self.headers["WWW-Authenticate"] = 'Bearer realm="vireid"'

    def body(self) -> bytes:
        """The document as UTF-8."""
        document: dict[str, Any] = {
            "type": f"urn:vireid:problem:{self.kind}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.choices is not None:
            document["choices"] = list(self.choices)
        return json.dumps(document).encode()  # ASCII: a lone surrogate in a name is no valid UTF-8


def sentence(text: str) -> str:
    """A text with a capital at its beginning and a full stop at its end.

    >>> sentence("this is no picture")
    'This is no picture.'
    """
    text = f"{text[:1].upper()}{text[1:]}"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def for_status(status: int, detail: str = "") -> Refusal:
    """The refusal that has a status, for those that come from the libraries."""
    usual = {status: kind for kind, (status, _) in reversed(KINDS.items())}
    kind = usual.get(status, "internal" if status >= 500 else "bad-request")
    return Refusal(kind, detail or f"{KINDS[kind][1]}.")


def documented(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, as FastAPI's `responses`."""
    texts: dict[int, list[str]] = {}
    for kind in kinds:
        status, title = KINDS[kind]
        texts.setdefault(status, []).append(title)
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    found: dict[int | str, dict[str, Any]] = {}
    for status, titles in sorted(texts.items()):
        found[status] = {"description": ". ".join(titles), "content": {MEDIA_TYPE: schema}}
        headers = {}
        if status in (429, 503):
            headers["Retry-After"] = {"description": "Seconds to wait", "schema": {"type": "integer", "minimum": 1}}
        if status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
        if headers:
            found[status]["headers"] = headers
    return found
