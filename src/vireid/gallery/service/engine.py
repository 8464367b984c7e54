"""What the service does, without HTTP: one worker that searches, and what is written down of each search."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval

from vireid.data.errors import BadInput
from vireid.data.modality import Modality
from vireid.data.settings import Count, Positive, options
from vireid.data.size import Size
from vireid.evaluation.calibration import Calibration
from vireid.gallery import search as searching
from vireid.gallery.facets import Facets
from vireid.gallery.feedback import Feedback
from vireid.gallery.index import CALIBRATION, Index
from vireid.gallery.row import MODALITIES, Row, Where
from vireid.gallery.scores import STRANGERS
from vireid.gallery.service.answers import MOST as TOP
from vireid.gallery.service.answers import PICTURES, Filters
from vireid.gallery.service.audit import Audit
from vireid.gallery.service.batching import MOST, PATIENCE, WAITING, Job, Worker
from vireid.gallery.service.gate import UPLOAD
from vireid.gallery.service.metrics import Metrics
from vireid.gallery.service.problems import Refusal
from vireid.gallery.service.remembered import MINUTES, Remembered, Searches

SHOWN = 10_000
"""Most pictures of a search that it remembers to have shown."""
LOOK = 10.0
"""Seconds until a calibration that was stored meanwhile is used."""

log = logging.getLogger(__name__)


@options
class Serving:
    """How an index is served.

    Attributes:
        page: whether the page for people is served too.
        require_reason: whether a search must say why it is made.
        threshold: strangers up to which a search is `likely`, see `vireid.gallery.scores`.
        rate, burst: searches a second of each token, and at once.
        waiting: most searches in the queue.
        together: most pictures that are embedded at a time.
        patience: seconds for which a lonely picture waits for others.
        minutes: how long a search is remembered after its last use.
        keep_audit: days after which entries of the audit log are removed.
        upload: most bytes of the pictures of a search.
        body_seconds, idle_seconds: how long a body may take, and how long nothing of it may come.
    """

    page: bool = True
    require_reason: bool = False
    threshold: Annotated[float, Interval(gt=0, le=1)] = STRANGERS
    rate: Positive = 5
    burst: Count = 20
    waiting: Count = WAITING
    together: Count = MOST
    patience: Annotated[float, Interval(ge=0, le=1)] = PATIENCE
    minutes: Positive = MINUTES
    keep_audit: Annotated[float, Interval(gt=0, le=36_500)] = 90
    upload: Count = UPLOAD
    body_seconds: Positive = 60
    idle_seconds: Positive = 10


class Searching:
    """What the worker calls: the model, and the search of an index.

    A calibration that is stored in the index meanwhile is used soon.
    """

    def __init__(self, index: Index, threshold: float = STRANGERS, clock: Callable[[], float] = time.monotonic) -> None:
        self.index = index
        self._threshold, self._clock = threshold, clock
        self._looked = clock()

    def warm(self) -> None:
        """Load the model, and embed and search once in each modality."""
        blank = np.zeros((*self.index.facts.size, 3), np.uint8)
        for modality in MODALITIES:
            vectors = self.embed([blank], modality)
            searching.search(self.index, [searching.Query(vectors[0], modality)], top=1)

    def embed(self, pictures: Sequence[np.ndarray], modality: Modality) -> np.ndarray:
        """Vectors of pictures of the model's size."""
        from vireid.evaluation.inference import ENOUGH

        # As N×3×H×W they are known to have the model's size, and are not resized again.
        together = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))
        return self.index.model.embed(together, modality, expected=ENOUGH)  # a service is there for many

    def search(
        self, queries: Sequence[searching.Query], where: Where, top: int, start: int
    ) -> Sequence[searching.Answer]:
        """An answer for each query.

        Raises:
            Refusal: the store cannot be used.
        """
        self._look()
        try:
            return searching.search(self.index, queries, where, top=top, start=start, threshold=self._threshold)
        except BadInput as error:  # the request was checked, so it is the store
            raise unavailable(error) from error

    def _look(self) -> None:
        if self._clock() < self._looked + LOOK:
            return
        self._looked = self._clock()
        try:
            text = self.index.store.kept(CALIBRATION)
            kept = None if text is None else Calibration.from_text(text, f"the calibration in {self.index.url}")
        except BadInput as error:
            log.warning("the calibration was not read again: %s", error)
            return
        if kept != self.index.calibration:
            model = self.index.model
            self.index = dataclasses.replace(self.index, calibration=kept)
            self.index.__dict__["model"] = model  # as its cached property would
            log.warning("%s has another calibration now, which is used from here on", self.index.url)


class Engine:
    """An index with a worker, and the records of its use. It is started once, and closed.

    Attributes:
        serving: how it is served.
        searching: the model and the index. The worker calls it, nobody else.
        worker: the thread that searches.
        searches: the searches that are remembered.
        audit, feedback: the records.
        failed: called by the worker's thread if it cannot begin; `worker.trouble` says why.
        facets: counts of the index.
        metrics: counts of the service.
    """

    def __init__(self, index: Index, serving: Serving | None = None) -> None:
        """
        Args:
            index: it belongs to the engine from now on, which closes it.
            serving: how it is served.

        Raises:
            BadInput: the audit log or the feedback cannot be opened.
        """
        self.serving = serving = serving or Serving()
        self.store = index.store
        self.searching = Searching(index, serving.threshold)
        self.searches = Searches(serving.minutes)
        self.audit = Audit(index.folder, serving.keep_audit)
        try:
            self.feedback = Feedback(index.folder)
        except BaseException:
            self.audit.close()
            raise
        self.failed: Callable[[], None] | None = None
        self.facets = Facets(index.store)
        self.metrics = Metrics(lambda: self.worker.waiting(), self._rows)
        self.worker = Worker(
            self.searching,
            waiting=serving.waiting,
            most=serving.together,
            patience=serving.patience,
            seen=self.metrics.batch,
        )

    @property
    def index(self) -> Index:
        """The index, with the calibration that is used now."""
        return self.searching.index

    def start(self) -> None:
        """Let the worker begin, and count what the gallery holds."""
        self.worker.start(self.failed)
        self.facets.begin()

    def close(self, seconds: float | None = None) -> None:
        """End the worker within `seconds`, and close records and index."""
        self.worker.close(seconds)
        self.audit.close()
        self.feedback.close()
        self.index.close()

    def fitted(self, pixels: np.ndarray) -> np.ndarray:
        """A picture (H×W×3 uint8) at the model's size, as `vireid.model.Model.embed` makes it."""
        from vireid.model import as_picture

        return as_picture(pixels, Size(*self.index.facts.size))

    def row(self, id: str) -> Row:
        """A row of the gallery, with its vector.

        Raises:
            Refusal: there is none with this id, or the store cannot be used.
        """
        try:
            found = self.store.get([id]).get(id)
        except BadInput as error:
            raise unavailable(error) from error
        if found is None:
            raise Refusal("not-found", "There is no such picture in the gallery.")
        return found

    def thumbnail(self, id: str) -> bytes:
        """The JPEG of a picture.

        Raises:
            Refusal: there is no such picture, it has none, or the store cannot be used.
        """
        try:
            found = self.store.thumbnail(id)
        except BadInput as error:
            raise unavailable(error) from error
        if found is None:
            raise Refusal("not-found", "There is no thumbnail of such a picture in the gallery.")
        return found

    def facts(self) -> dict[str, Any]:
        """What the index holds, as `vireid.gallery.service.answers.Facets` has it.

        Raises:
            Refusal: the store cannot be used.
        """
        calibration = self.index.calibration
        try:
            counted = self.facets.now().as_values()
        except BadInput as error:
            raise unavailable(error) from error
        return {
            "model": self.index.facts.name,
            "calibrated": calibration is not None,
            "people": None if calibration is None else calibration.people,
            "warnings": [] if calibration is None else list(calibration.warnings),
            "require_reason": self.serving.require_reason,
            **counted,
            "limits": {"bytes": self.serving.upload, "pictures": PICTURES, "top": TOP},
        }

    def job(self, search: Remembered | None, filters: Filters, **of_pictures: Any) -> Job:
        """A job with filters: of a remembered search, or of pictures."""
        query = None if search is None else search.query
        return Job(query=query, where=filters.where(), top=filters.top, start=filters.start, **of_pictures)

    def record(self, search: Remembered, filters: Filters, shown: Sequence[str]) -> None:
        """Write an answer into the audit log; after that it may be sent.

        Raises:
            Refusal: it cannot be written.
        """
        try:
            contents = "".join(sorted(search.contents))
            self.audit.record(search.who, contents, filters.given(), shown, search.reason)
        except BadInput as error:
            raise unavailable(error) from error
        if len(search.shown) > SHOWN:
            search.shown.clear()
        search.shown.update(shown)
        self.searches.keep(search)

    def judge(self, search: Remembered, picture: str, verdict: Any) -> None:
        """Write down what someone says of a match.

        Raises:
            Refusal: the search did not show this picture, it is not there any more, or nothing can be written.
        """
        if picture not in search.shown:
            raise Refusal("not-found", "This search did not show this picture.")
        content = self.row(picture).content
        try:
            for query in search.contents:
                self.feedback.put(search.id, query, content, verdict, search.who)
        except BadInput as error:
            raise unavailable(error) from error

    def _rows(self) -> dict[str, int]:
        facts = self.store.facts()
        return {"visible": facts.visible, "infrared": facts.infrared}


def unavailable(error: BadInput) -> Refusal:
    """The refusal when files or a server cannot be used. The reason is for the log only."""
    log.error("%s", error)
    return Refusal("unavailable", "The gallery cannot be used at the moment. The log of the service says why.", retry=5)
