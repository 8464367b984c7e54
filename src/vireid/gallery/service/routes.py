"""The HTTP service: an index that is searched through requests, and the page for people.

    service = Service(Engine(open_index("station")), Access(hosts=frozenset({"127.0.0.1"}), tokens=tokens))
    uvicorn.run(service.gate)

`vireid.gallery.service.server` runs it with a graceful stop. `docs/gallery.md` describes the calls, `/openapi.json`
exactly.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery import search as searching
from vireid.gallery import untrusted
from vireid.gallery.service import answers, problems
from vireid.gallery.service.access import Limits, Tokens
from vireid.gallery.service.answers import Filters, Found, FromPicture, FromUpload, Problem, Verdict
from vireid.gallery.service.batching import Closed, Full, Job
from vireid.gallery.service.engine import Engine
from vireid.gallery.service.gate import PROBES, Gate, Rules, mistaken, response, stopping
from vireid.gallery.service.metrics import MEDIA_TYPE
from vireid.gallery.service.problems import Refusal, documented
from vireid.gallery.service.remembered import Remembered
from vireid.gallery.service.uploads import FORM, as_refusal, check_query, read_form, read_json, refusal, type_of

DECODING = 2
"""Pictures that are decoded at a time. One of 20 megapixels takes 60 MB."""
UPLOADS = 256 * 2**20
"""Bytes of uploads that are read or decoded at a time. Each is in memory twice for a moment."""
PAGE = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
"""Ending of a file of the page → its type."""

_FILE = re.compile(rf"[a-z]+\.({'|'.join(PAGE)})")
_EVERYWHERE = ("unknown-host", "unauthenticated", "forbidden", "too-many", "internal", "stopping")
_SEARCH = (*_EVERYWHERE, "invalid", "busy", "loading", "unavailable")
Hex = Annotated[str, Path(pattern=answers.HEX)]


@dataclass(frozen=True)
class Access:
    """Who may use the service.

    Attributes:
        hosts: names in the Host header that are served, in lower case, without ports.
        tokens: None if no token is needed, which is for this machine only.
    """

    hosts: frozenset[str]
    tokens: Tokens | None = None


class Service:
    """The application.

    Attributes:
        engine: what searches.
        app: the routes.
        gate: the routes with everything that stands before them. This is what a server runs.
    """

    def __init__(self, engine: Engine, access: Access) -> None:
        self.engine = engine
        serving = engine.serving
        self._limits = Limits(serving.rate, serving.burst)
        self._verdicts = Limits(serving.rate, serving.burst)
        self._decoding = CapacityLimiter(DECODING)
        self._uploads = 0
        self._files = page_files() if serving.page else {}
        self.app = self._application()
        rules = Rules(
            hosts=access.hosts,
            tokens=access.tokens,
            limits=self._limits,
            public=frozenset({*PROBES, *self._files}),
            upload=serving.upload,
            body_seconds=serving.body_seconds,
            idle_seconds=serving.idle_seconds,
        )
        self.gate = Gate(self.app, rules, engine.metrics.answered)

    # --- routes -------------------------------------------------------------------------------------------------------

    async def search(self, request: Request) -> Response:
        """Search for the person in one or several pictures, or in a picture of the gallery."""
        who = self._may_search(request)
        if type_of(request) == FORM:
            fields, decoded = await self._uploaded(request)
            job = self.engine.job(None, fields, pictures=decoded.pictures, modality=decoded.modality)
            query, answer = await self._computed(request, job)
            guessed = fields.modality == "auto"
            search = Remembered(who, query, decoded.contents, guessed=guessed, reason=fields.reason)
        else:
            fields = await read_json(request, FromPicture)
            self._check_reason(fields.reason)
            row = await to_thread.run_sync(self.engine.row, fields.picture)
            assert row.vector is not None
            query = searching.Query(row.vector, row.modality, without=(row.id,))
            search = Remembered(who, query, (row.content,), picture=row.id, reason=fields.reason)
            _, answer = await self._computed(request, self.engine.job(search, fields))
        return await self._shown(search, fields, answer)

    async def search_again(self, request: Request, search: Hex, filters: Annotated[Filters, Query()]) -> Response:
        """A further page of a search, or the same one with other filters. A filter that is not given does not count."""
        who = self._may_search(request)
        check_query(request)
        found = self._remembered(search, who)
        _, answer = await self._computed(request, self.engine.job(found, filters))
        return await self._shown(found, filters, answer)

    def facets(self) -> dict[str, Any]:
        """What the gallery holds: its model, counts by camera, source and modality, times."""
        return self.engine.facts()

    def thumbnail(self, id: Hex) -> Response:
        """A small picture, as it was made when the gallery was built."""
        found = self.engine.thumbnail(id)
        return Response(found, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})

    async def feedback(self, request: Request) -> Response:
        """Say of a match that it is the same person or a different one, or take that back."""
        who = _who(request)
        _allow(self._verdicts.wait(who))
        said = await read_json(request, Verdict)
        search = self._remembered(said.search, who)
        await to_thread.run_sync(self.engine.judge, search, said.picture, said.verdict)
        return Response(status_code=204)

    def health(self) -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "ok"}

    def ready(self) -> dict[str, str]:
        """Whether searches are answered: the model is loaded, and the service is not being stopped."""
        if self.gate.stopping:
            raise stopping()
        self._check_ready()
        return {"status": "ready"}

    def metrics(self) -> Response:
        """Counts for Prometheus."""
        try:
            return Response(self.engine.metrics.text(), media_type=MEDIA_TYPE)
        except BadInput:
            raise Refusal("unavailable", "The gallery cannot be used at the moment.", retry=5) from None

    # --- what the routes share ----------------------------------------------------------------------------------------

    def _may_search(self, request: Request) -> str:
        """The name of who asks, if they may search now. It is asked before the body is read."""
        who = _who(request)
        self._check_ready()
        _allow(self._limits.wait(who))
        return who

    def _check_ready(self) -> None:
        if not self.engine.worker.ready.is_set():
            raise Refusal("loading", "The model is being loaded.", retry=2)

    def _check_reason(self, reason: str | None) -> None:
        if self.engine.serving.require_reason and reason is None:
            raise Refusal("reason-required", "Say why this person is searched for, in the field reason.")

    def _remembered(self, id: str, who: str) -> Remembered:
        if (found := self.engine.searches.find(id, who)) is None:
            raise Refusal("not-found", "This search is forgotten: send the picture again.")
        return found

    async def _uploaded(self, request: Request) -> tuple[FromUpload, _Decoded]:
        """Read and decode a form. Its bytes are forgotten when this returns."""
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdigit() else self.engine.serving.upload
        if self._uploads + size > UPLOADS:
            raise Refusal("busy", "Too many pictures are being read. Try again soon.", retry=1)
        self._uploads += size
        try:
            upload = await read_form(request)
            self._check_reason(upload.fields.reason)
            named = upload.fields.modality
            modality = None if named == "auto" else Modality[named.upper()]
            decoded = await to_thread.run_sync(self._decoded, upload.pictures, modality, limiter=self._decoding)
            return upload.fields, decoded
        finally:
            self._uploads -= size

    def _decoded(self, pictures: tuple[bytes, ...], modality: Modality | None) -> _Decoded:
        """Pictures at the model's size, and their modality: the given one, or a guess."""
        fitted, contents, guesses = [], [], set()
        for data in pictures:
            try:
                one = untrusted.decode(data)
            except untrusted.Refused as error:
                kind = {413: "too-large", 415: "wrong-type"}.get(error.status, "unreadable")
                choices = answers.IMAGES if kind == "wrong-type" else None
                raise Refusal(kind, error.detail, choices=choices) from None
            guesses.add(untrusted.guess(one.pixels) if modality is None else modality)
            contents.append(one.content)
            fitted.append(self.engine.fitted(one.pixels))  # so that no large picture waits in memory
        if len(guesses) > 1:
            raise Refusal(
                "invalid",
                "Some of the pictures look visible and others infrared: search for each kind by itself, or name "
                "the modality of all of them.",
                choices=["visible", "infrared"],
            )
        return _Decoded(tuple(fitted), tuple(contents), guesses.pop())

    async def _computed(self, request: Request, job: Job) -> tuple[searching.Query, searching.Answer]:
        """Let the worker compute a job. If the client leaves, the job leaves the queue."""
        try:
            future = asyncio.wrap_future(self.engine.worker.submit(job))
        except Full as error:
            raise Refusal("busy", "Too many searches wait. Try again soon.", retry=min(error.seconds, 60)) from None
        except Closed:
            raise stopping() from None
        gone = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({future, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not future.done():
                future.cancel()
        if gone.done() and not gone.cancelled():
            raise ClientDisconnect
        if future.cancelled():
            raise stopping()
        try:
            return future.result()
        except BadInput as error:
            raise Refusal("invalid", str(error)) from None

    async def _shown(self, search: Remembered, filters: Filters, answer: searching.Answer) -> Response:
        """The response of a search, after it was written into the audit log."""
        values = searching.as_values(answer)
        shown = [match["picture"] for match in values["matches"]]
        await to_thread.run_sync(self.engine.record, search, filters, shown)
        query = {
            "modality": search.query.modality.word,
            "guessed": search.guessed,
            "pictures": search.query.pictures,
            "picture": search.picture,
        }
        return JSONResponse({"search": search.id, **values, "query": query})

    # --- the application ----------------------------------------------------------------------------------------------

    def _application(self) -> FastAPI:
        app = FastAPI(
            title="vireid gallery",
            version="1",
            description="Search pictures of people from visible and infrared cameras.",
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            lifespan=self._life,
        )
        app.add_exception_handler(Refusal, _refused)
        app.add_exception_handler(HTTPException, _refused_by_library)
        app.add_exception_handler(RequestValidationError, _refused_by_types)
        app.add_exception_handler(ClientDisconnect, _gone)
        app.add_exception_handler(Exception, _mistaken)
        _add_routes(app, self)
        for path, (content, kind) in self._files.items():
            app.add_api_route(path, _file_route(content, kind), include_in_schema=False)
        app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
        return app

    @contextlib.asynccontextmanager
    async def _life(self, _: FastAPI) -> AsyncIterator[None]:
        self.engine.start()
        yield
        await to_thread.run_sync(self.engine.close, 2.0)


@dataclass(frozen=True)
class _Decoded:
    pictures: tuple[Any, ...]
    contents: tuple[str, ...]
    modality: Modality


def _add_routes(app: FastAPI, service: Service) -> None:
    add: Any = app.add_api_route
    add(
        "/v1/searches", service.search, methods=["POST"], response_model=Found, openapi_extra=_search_body(),
        responses=documented(*_SEARCH, "bad-request", "not-found", "timeout", "too-large", "wrong-type", "unreadable",
                             "reason-required"),
    )  # fmt: skip
    add(
        "/v1/searches/{search}", service.search_again, response_model=Found,
        responses=documented(*_SEARCH, "not-found"),
    )  # fmt: skip
    add("/v1/facets", service.facets, response_model=answers.Facets, responses=documented(*_EVERYWHERE, "unavailable"))
    jpeg = {200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}}
    add(
        "/v1/pictures/{id}/thumbnail", service.thumbnail, response_class=Response,
        responses={**jpeg, **documented(*_EVERYWHERE, "invalid", "not-found", "unavailable")},
    )  # fmt: skip
    add(
        "/v1/feedback", service.feedback, methods=["PUT"], status_code=204, openapi_extra=_body(Verdict),
        responses=documented(*_EVERYWHERE, "bad-request", "invalid", "not-found", "timeout", "too-large", "wrong-type",
                             "unavailable"),
    )  # fmt: skip
    add("/healthz", service.health, response_model=answers.Health)
    add("/readyz", service.ready, response_model=answers.Health, responses=documented("loading", "stopping"))
    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    add(
        "/metrics", service.metrics, response_class=Response,
        responses={**text, **documented(*_EVERYWHERE, "unavailable")},
    )  # fmt: skip


def page_files() -> dict[str, tuple[bytes, str]]:
    """The files of the page: path → content and type. They are read once, and nothing else is ever served."""
    found = {}
    for file in sorted(resources.files("vireid.gallery.service").joinpath("page").iterdir(), key=lambda one: one.name):
        if named := _FILE.fullmatch(file.name):
            found[f"/{file.name}"] = (file.read_bytes(), f"{PAGE[named[1]]}; charset=utf-8")
    if "/index.html" in found:
        found["/"] = found.pop("/index.html")
    return found


def openapi(app: FastAPI) -> dict[str, Any]:
    """The description of the calls. It is made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = made.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for kind in (Problem, answers.FromUpload, FromPicture, Verdict):
            schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas[kind.__name__] = schema
        _describe_form(schemas["FromUpload"])
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, calls in made["paths"].items():
            for call in calls.values():
                call["security"] = [] if path in PROBES else [{"token": []}]
        app.openapi_schema = made
    return app.openapi_schema


def _describe_form(schema: dict[str, Any]) -> None:
    """Add the pictures to the schema of the form. A form has no null: what does not count is left out."""
    image = {"type": "string", "format": "binary"}
    fields = {"image": {"type": "array", "items": image, "minItems": 1, "maxItems": answers.PICTURES}}
    for name, field in schema["properties"].items():
        kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
        described = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
        fields[name] = {**kinds[0], **described} if kinds else field
    schema["properties"], schema["required"] = fields, ["image"]


def _search_body() -> dict[str, Any]:
    encoding = {"image": {"contentType": ", ".join(answers.IMAGES)}}
    form = {"schema": {"$ref": "#/components/schemas/FromUpload"}, "encoding": encoding}
    body = _body(FromPicture)
    body["requestBody"]["content"][FORM] = form
    return body


def _body(kind: type) -> dict[str, Any]:
    schema = {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}
    return {"requestBody": {"required": True, "content": {"application/json": schema}}}


def _file_route(content: bytes, kind: str) -> Callable[[], Response]:
    def file() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return file


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return response(error)


async def _refused_by_library(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return response(as_refusal(error))


async def _refused_by_types(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return response(refusal(error.errors(), Filters.model_fields))


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it; it is counted


async def _mistaken(_: Request, __: Exception) -> Response:
    return response(mistaken())  # the gate logs it


async def _left(request: Request) -> None:
    """Wait until the client ends the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _who(request: Request) -> str:
    return request.state.who


def _allow(seconds: float) -> None:
    if seconds > 0:
        raise Refusal("too-many", "Too many requests with this token.", retry=seconds)


__all__ = ["Access", "Service", "openapi", "page_files", "problems"]
