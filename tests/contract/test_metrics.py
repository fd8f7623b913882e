"""/metrics of one process; tests/e2e/test_telemetry.py tests two processes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url
from starlette.testclient import TestClient

from main import create_app
from tests.actors import bearer, client_of, settings_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of the metrics. prometheus_client reads the variable once, on import."""
    folder = tmp_path_factory.mktemp("metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def client(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    url = make_url(f"sqlite:///{tmp_path_factory.mktemp('metrics') / 'todo.db'}")
    yield from client_of(create_app(settings_for(url, prometheus_multiproc_dir=folder)), {})


def _counted(client: TestClient) -> dict[str, float]:
    counts = re.findall(
        r"^http_request_duration_seconds_count{(.*)} (.*)$",
        client.get("/metrics").text,
        re.MULTILINE,
    )
    return {labels: float(count) for labels, count in counts}


@pytest.mark.parametrize(
    ("method", "path", "labels"),
    [
        ("GET", "/api/tasks?limit=1", ("GET", "/api/tasks", "200")),
        ("HEAD", "/api/tasks", ("HEAD", "/api/tasks", "200")),
        ("HEAD", "/metrics", ("HEAD", "/metrics", "200")),
        ("GET", "/api/tasks/7", ("GET", "/api/tasks/{task_id}", "404")),
        ("GET", "/api/ann/tasks", ("GET", "/api/{user_id}/tasks", "200")),
        ("GET", "/api/bob/tasks", ("GET", "/api/{user_id}/tasks", "403")),
        ("GET", "/made/up", ("GET", "none", "404")),
        ("BREW", "/health", ("other", "/health", "405")),
        ("MADEUP", "/made/up/too", ("other", "none", "404")),
    ],
)
def test_a_request_is_counted_by_its_route(
    client: TestClient, method: str, path: str, labels: tuple[str, str, str]
) -> None:
    counted = 'method="{}",route="{}",status="{}"'.format(*labels)
    before = _counted(client).get(counted, 0)

    client.request(method, path, headers=bearer("ann"))

    assert _counted(client)[counted] == before + 1


def test_the_metrics_contain_no_users_or_paths(client: TestClient) -> None:
    client.get("/api/ann/tasks/4711", headers=bearer("ann"))
    client.get("/made/up", headers=bearer("ann"))

    metrics = client.get("/metrics")

    assert metrics.headers["Content-Type"].startswith("text/plain; version=")
    labels = re.findall(r"{.*}", metrics.text)  # the digits of other values do not matter
    for text in ("ann", "4711", "made"):
        assert text not in "".join(labels)
    assert "{task_id}" in "".join(labels)


def test_without_a_directory_there_are_no_metrics(anonymous: TestClient) -> None:
    assert anonymous.get("/metrics").status_code == 404
    assert "/metrics" not in anonymous.get("/openapi.json").text
