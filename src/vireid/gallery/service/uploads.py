"""What requests bring: forms with pictures, JSON, queries. Bodies are kept in memory only, and read under limits."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from vireid.gallery.row import LONG
from vireid.gallery.service.answers import PICTURES, FromUpload
from vireid.gallery.service.problems import Refusal, for_status

FIELDS = 500
"""Most fields of a form that are no pictures."""
FORM, JSON = "multipart/form-data", "application/json"

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each form that is none

Body = TypeVar("Body", bound=BaseModel)
_LISTS = ("cameras", "sources")
_QUOTED = re.compile(r"'([^']*)'")


@dataclass(frozen=True)
class Upload:
    """The pictures of a form as the bytes that were sent, and its other fields."""

    pictures: tuple[bytes, ...]
    fields: FromUpload


class _InMemory(MultiPartParser):
    """Starlette's parser writes large files to disk. A query's picture must never be there."""

    spool_max_size = 2**40


def type_of(request: Request) -> str:
    """The type of the body, without its parameters.

    Raises:
        Refusal: it is none that a search has.
    """
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found not in (FORM, JSON):
        raise Refusal("wrong-type", "A search is a form with pictures, or a JSON document.", choices=[FORM, JSON])
    return found


async def read_form(request: Request) -> Upload:
    """Read a form with pictures.

    Raises:
        Refusal: it is none, is too large, or a field cannot be used.
    """
    parser = _InMemory(request.headers, request.stream(), max_files=PICTURES, max_fields=FIELDS, max_part_size=4 * LONG)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal("bad-request", f"The form cannot be read: {error.message}") from None
    values: dict[str, Any] = {}
    pictures = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "image":
                raise Refusal("invalid", f"The form has a file in the field {name[:40]!a}.", choices=["image"])
            pictures.append(await value.read())
            await value.close()
        elif name == "image":
            raise Refusal("invalid", "The field image must have a file.")
        elif name in _LISTS:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise Refusal("invalid", f"The form has the field {name[:40]!a} twice.")
        else:
            values[name] = value
    if not pictures:
        raise Refusal("invalid", "A search needs a picture, in the field image.", choices=["image"])
    return Upload(tuple(pictures), _checked(FromUpload, values))


def check_query(request: Request) -> None:
    """Check that nothing in an address is given twice but lists. FastAPI would take the last one.

    Raises:
        Refusal: something is.
    """
    names = [name for name, _ in request.query_params.multi_items() if name not in _LISTS]
    for name in names:
        if names.count(name) > 1:
            raise Refusal("invalid", f"The address has the field {name[:40]!a} twice.")


async def read_json(request: Request, kind: type[Body]) -> Body:
    """Read a JSON document.

    Raises:
        Refusal: it is none, is too large, or a value cannot be used.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise Refusal("wrong-type", "The body must be a JSON document.", choices=[JSON])
    data = await request.body()
    try:
        return kind.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise refusal(error.errors(include_url=False), kind.model_fields) from None


def _checked(kind: type[Body], values: dict[str, Any]) -> Body:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise refusal(error.errors(include_url=False), kind.model_fields) from None


def refusal(errors: Sequence[Any], names: Iterable[str] = ()) -> Refusal:
    """The first mistake that pydantic found, in one sentence. It repeats no value that was sent.

    Args:
        errors: as `pydantic.ValidationError.errors` gives them, or FastAPI.
        names: the fields that there are.
    """
    first = errors[0]
    kind, place = first["type"], [part for part in first["loc"] if part not in ("query", "body", "path")]
    where = ascii(".".join(str(part) for part in place)[:80]).strip("'\"")
    if kind == "json_invalid":
        return Refusal("bad-request", "The body is no JSON document.")
    if kind == "extra_forbidden":
        return Refusal("invalid", f"There is no field {where}.", choices=sorted(names) or None)
    if kind == "literal_error":
        return Refusal(
            "invalid", f"The field {where} has an unknown value.", choices=_QUOTED.findall(first["ctx"]["expected"])
        )
    if kind == "missing":
        return Refusal("invalid", f"The field {where} is missing.")
    said = first["msg"].removeprefix("Value error, ").rstrip(".")
    return Refusal("invalid", f"The field {where} cannot be used: {said[:1].lower()}{said[1:]}" if where else said)


def as_refusal(error: HTTPException) -> Refusal:
    """What a library refused, as a refusal with its headers."""
    found = for_status(error.status_code)
    found.headers |= dict(error.headers or {})
    if error.status_code == 405 and (allowed := found.headers.get("Allow") or found.headers.get("allow")):
        found.choices = [one.strip() for one in allowed.split(",")]
    return found
