"""Prometheus metrics: the request durations of all processes that share a directory.

Import this only if PROMETHEUS_MULTIPROC_DIR is set: prometheus_client reads it on import.
"""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

DURATION = Histogram(
    "http_request_duration_seconds",
    "How long requests took, from the first byte to the last.",
    ["method", "route", "status"],
)

router = APIRouter(include_in_schema=False)


def observe(method: str, route: str | None, status: int | None, seconds: float) -> None:
    """Record a request. Clients cannot create new label values."""
    DURATION.labels(
        method if method in METHODS else "other", route or "none", status or "none"
    ).observe(seconds)


@router.get("/metrics")
def read_metrics() -> Response:
    """Return the metrics of all processes that share the directory."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
