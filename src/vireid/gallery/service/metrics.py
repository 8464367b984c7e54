"""What a service counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The counters of one service. Two services in one process have their own.

    Args:
        waiting: how many searches wait.
        rows: the pictures of the gallery, by modality.
    """

    def __init__(self, waiting: Callable[[], int], rows: Callable[[], dict[str, int]]) -> None:
        self.registry = CollectorRegistry()
        name, registry = "vireid_gallery", self.registry
        self._requests = Counter(f"{name}_requests", "Requests", ["route", "status"], registry=registry)
        self._latency = Histogram(
            f"{name}_request_seconds", "From the request's head to the end of its answer", ["route"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._embedded = Counter(f"{name}_embedded_pictures", "Pictures that the model embedded", registry=registry)
        self._batches = Histogram(
            f"{name}_batch_searches", "Searches computed together", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self._batch_seconds = Histogram(f"{name}_batch_seconds", "Time of a batch", buckets=SECONDS, registry=registry)
        Gauge(f"{name}_waiting_searches", "Searches that wait", registry=registry).set_function(waiting)
        registry.register(_Rows(f"{name}_rows", rows))

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is a template such as `/v1/pictures/{id}/thumbnail`, never what was asked for."""
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def batch(self, pictures: int, jobs: int, seconds: float) -> None:
        """Count what was computed together."""
        self._embedded.inc(pictures)
        self._batches.observe(jobs)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All counts."""
        return generate_latest(self.registry)


class _Rows(Collector):
    def __init__(self, name: str, rows: Callable[[], dict[str, int]]) -> None:
        self._name, self._rows = name, rows

    def describe(self) -> list[GaugeMetricFamily]:
        """Its name, without asking the gallery."""
        return [GaugeMetricFamily(self._name, "Pictures of the gallery", labels=["modality"])]

    def collect(self) -> list[GaugeMetricFamily]:
        """The numbers of now."""
        found = GaugeMetricFamily(self._name, "Pictures of the gallery", labels=["modality"])
        for modality, count in self._rows().items():
            found.add_metric([modality], count)
        return [found]
