"""What the service takes and gives, as types. `/openapi.json` is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.gallery.row import LONG, NAME, Where, check_name
from vireid.gallery.service.audit import REASON, checked_reason
from vireid.gallery.store import TOP
from vireid.gallery.times import parse_time

MOST = 100
"""Most matches of one answer."""
VALUES = 200
"""Most cameras and sources of a filter."""
PICTURES = 8
"""Most pictures of one search."""
HEX = "^[0-9a-f]{32}$"
IMAGES = ("image/jpeg", "image/png", "image/webp", "image/bmp")


def _time(text: str) -> str:
    try:
        parse_time(text)
    except BadInput as error:
        raise ValueError(str(error)) from None
    return text


def _camera(text: str) -> str:
    try:
        check_name("camera", text)
    except BadInput as error:
        raise ValueError(str(error)) from None
    return text


def _reason(text: str) -> str:
    try:
        return checked_reason(text)
    except BadInput as error:
        raise ValueError(str(error)) from None


def _nothing(value: Any) -> Any:
    """Forms send an empty field where nothing was chosen."""
    return None if isinstance(value, str) and not value.strip() else value


Time = Annotated[
    Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"}), AfterValidator(_time)] | None,
    BeforeValidator(_nothing),
]
Camera = Annotated[str, Field(min_length=1, max_length=NAME), AfterValidator(_camera)]
Source = Annotated[str, Field(min_length=1, max_length=LONG)]
Id = Annotated[str, Field(pattern=HEX)]
Word = Literal["visible", "infrared"]
Reason = Annotated[
    Annotated[str, Field(max_length=REASON), AfterValidator(_reason)] | None,
    BeforeValidator(_nothing),
]
Number = Annotated[int, Field(ge=0)]


class Filters(BaseModel):
    """Which pictures are searched, and which matches of all are given."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    cameras: Annotated[list[Camera], Field(max_length=VALUES)] | None = Field(
        None, description="The picture is from one of these cameras."
    )
    sources: Annotated[list[Source], Field(max_length=VALUES)] | None = Field(
        None, description="The picture is from one of these sources."
    )
    search_in: Annotated[Word | None, BeforeValidator(_nothing)] = Field(
        None, description="The modality of the gallery that is searched. Both, if it is left out."
    )
    since: Time = Field(None, description="Taken at this time or later, ISO 8601; without a zone it is UTC.")
    until: Time = Field(None, description="Taken before this time. Pictures without a time pass neither.")
    top: int = Field(20, ge=1, le=MOST, description="Most matches of a list.")
    start: int = Field(0, ge=0, le=TOP - 1, description="How many matches to pass over.")

    @model_validator(mode="after")
    def _check_where(self) -> Filters:
        try:
            self.where()
        except BadInput as error:
            raise ValueError(str(error)) from None
        return self

    def where(self) -> Where:
        """The filter of the store."""
        return Where(
            modality=None if self.search_in is None else Modality[self.search_in.upper()],
            cameras=None if self.cameras is None else tuple(self.cameras),
            sources=None if self.sources is None else tuple(self.sources),
            since=None if self.since is None else parse_time(self.since),
            until=None if self.until is None else parse_time(self.until),
        )

    def given(self) -> dict[str, Any]:
        """What was asked for, for the audit log."""
        return self.model_dump(include=set(Filters.model_fields), exclude_none=True)


class FromUpload(Filters):
    """The fields of a form that come with pictures."""

    modality: Literal["auto", "visible", "infrared"] = Field(
        "auto", description="Of the pictures in the form. `auto` takes pictures with equal colour channels as infrared."
    )
    reason: Reason = Field(None, description="Why this person is searched for. It is kept in the audit log.")


class FromPicture(Filters):
    """A search that begins from a picture of the gallery."""

    picture: Id = Field(description="Its id.")
    reason: Reason = Field(None, description="Why this person is searched for. It is kept in the audit log.")


class Verdict(BaseModel):
    """What someone says of a match."""

    model_config = ConfigDict(extra="forbid")

    search: Id = Field(description="The search that showed the match.")
    picture: Id = Field(description="The id of the match.")
    verdict: Literal["same", "different", "none"] = Field(
        description="The same person, a different one, or none: what was said before is taken back."
    )


class QueryFacts(BaseModel):
    """What was searched for."""

    modality: Word
    guessed: bool = Field(description="Whether the modality was guessed from the picture.")
    pictures: Annotated[int, Field(ge=1)]
    picture: Id | None = Field(description="The id of the gallery's picture that the search began from.")


class Counts(BaseModel):
    """Pictures by modality."""

    visible: Number
    infrared: Number


class Match(BaseModel):
    """One picture that was found."""

    picture: Id
    rank: Annotated[int, Field(ge=1)]
    camera: str
    modality: Word
    time: str | None = Field(description="ISO 8601, UTC.")
    cosine: float
    ratio: float | None = Field(description="Log-likelihood ratio; null without calibration.")
    strangers: float | None = Field(description="How many pictures of other people are expected to reach this cosine.")
    strangers_upper: float | None = Field(description="The upper end of its 95 % interval.")


class Found(BaseModel):
    """The answer to a search."""

    search: Id = Field(description="For further pages and other filters, for 15 minutes after the last use.")
    query: QueryFacts
    searched: Counts = Field(description="How many pictures passed the filter.")
    state: Literal["likely", "possible", "absent", "open", "unresolved"] | None = Field(
        description="Null without calibration."
    )
    words: str = Field(description="The state as a sentence.")
    matches: list[Match] = Field(
        description="By falling ratio. Without calibration there are two lists, one after the other: the modality that "
        "is not the query's, then the query's own. Each has up to `top` matches and its own ranks."
    )
    next: int | None = Field(description="The `start` of the next page.")


class Group(BaseModel):
    """Pictures of one camera or source."""

    name: str
    visible: Number
    infrared: Number


class Times(BaseModel):
    """When the pictures were taken."""

    first: str | None
    last: str | None
    without: Number = Field(description="Pictures whose time is not known. They pass no filter by time.")


class Limits(BaseModel):
    """What one search may have."""

    bytes: Number
    pictures: Number
    top: Number


class Facets(BaseModel):
    """What the gallery holds, to choose filters from. Counts may be some seconds old."""

    model: str
    calibrated: bool
    people: Number | None = Field(description="With how many people it was calibrated.")
    warnings: list[str]
    require_reason: bool
    pictures: Counts
    cameras: list[Group]
    sources: list[Group]
    times: Times
    limits: Limits


class Health(BaseModel):
    """The answer to a probe."""

    status: Literal["ok", "ready"]


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    choices: list[str] | None = None
