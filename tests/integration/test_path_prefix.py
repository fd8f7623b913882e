"""Everything works under the path prefix of a proxy, and all links contain the prefix."""

from collections.abc import Iterator
from typing import NamedTuple

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

import overload
from tests.actors import bearer, served
from tests.contract.operations import OPENAPI


class Deployment(NamedTuple):
    """How the server is started and what the proxy does."""

    root_path: str  # the option of the server
    prefix: str  # of the paths that a browser sees
    arrives: bool  # False if the proxy strips the prefix


DEPLOYMENTS = [
    Deployment("/todo", "/todo", arrives=False),
    Deployment("/todo", "/todo", arrives=True),
    Deployment("/todo/", "/todo", arrives=False),
    Deployment("/todo/", "/todo", arrives=True),
    Deployment("todo", "/todo", arrives=True),
    Deployment("/a/b.c", "/a/b.c", arrives=True),
    # The app's own paths begin with this prefix.
    Deployment("/api", "/api", arrives=False),
    Deployment("/api", "/api", arrives=True),
    Deployment("/", "", arrives=False),
    Deployment("", "", arrives=False),
]


class Proxy:
    """A proxy to the app. Its paths are those that a browser sees."""

    def __init__(self, http: httpx2.Client, deployment: Deployment) -> None:
        self._http = http
        self._deployment = deployment

    def __call__(
        self, method: str, path: str, json: object = None, **headers: str
    ) -> httpx2.Response:
        assert path.startswith(self._deployment.prefix)
        passed = path if self._deployment.arrives else path.removeprefix(self._deployment.prefix)
        return self._http.request(method, passed, json=json, headers=headers)


@pytest.fixture(params=DEPLOYMENTS, ids=str)
def deployment(request: pytest.FixtureRequest) -> Deployment:
    parameter: Deployment = request.param
    return parameter


@pytest.fixture
def database_url(sqlite_url: object) -> object:
    """Run the tests on SQLite only: the database does not matter here."""
    return sqlite_url


@pytest.fixture
def proxy(app: FastAPI, deployment: Deployment) -> Iterator[Proxy]:
    with (
        served(app, deployment.root_path) as port,
        httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers=bearer("ann"), timeout=30
        ) as http,
    ):
        yield Proxy(http, deployment)


@pytest.mark.parametrize("tasks", ["/api/tasks", "/api/ann/tasks"])
def test_location_and_link_contain_the_prefix(
    proxy: Proxy, deployment: Deployment, tasks: str
) -> None:
    created = [proxy("POST", f"{deployment.prefix}{tasks}", {"title": title}) for title in "ab"]
    assert [task.headers["Location"] for task in created] == [
        f"{deployment.prefix}{tasks}/{number}" for number in (1, 2)
    ]
    assert proxy("GET", created[0].headers["Location"]).json()["title"] == "a"

    first = proxy("GET", f"{deployment.prefix}{tasks}?limit=1")
    assert first.links["next"]["url"].startswith(f"{deployment.prefix}{tasks}?limit=1&cursor=")
    second = proxy("GET", first.links["next"]["url"])

    assert [page.json()[0]["title"] for page in (first, second)] == ["b", "a"]
    assert second.links["first"]["url"] == f"{deployment.prefix}{tasks}?limit=1"


def test_every_path_works_and_a_405_lists_its_methods(proxy: Proxy, deployment: Deployment) -> None:
    for template, methods in OPENAPI["paths"].items():
        path = deployment.prefix + template.format(user_id="ann", task_id=1)
        allowed = {method.upper() for method in methods}

        response = proxy("TRACE", path)

        assert response.status_code == 405, path
        named = set(response.headers["Allow"].split(", "))
        assert named == allowed | ({"HEAD"} if "GET" in allowed else set()), path


def test_requests_under_the_prefix_are_limited(
    proxy: Proxy, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "IN_FLIGHT_MAX", 0)

    limited = [
        proxy("GET", f"{deployment.prefix}{path}") for path in ("/api/tasks", "/api/ann/tasks/1")
    ]

    assert [response.status_code for response in limited] == [503, 503]
    for path in ("/health", "/ready", "/openapi.json", "/docs"):
        assert proxy("GET", deployment.prefix + path).status_code == 200


def test_the_contract_and_the_pages_contain_the_prefix(
    proxy: Proxy, deployment: Deployment
) -> None:
    contract = proxy("GET", f"{deployment.prefix}/openapi.json").json()
    home = proxy("GET", f"{deployment.prefix}/")

    assert contract.get("servers") == ([{"url": deployment.prefix}] if deployment.prefix else None)
    assert (home.status_code, home.headers["Location"]) == (307, "docs")  # relative to the page
    for page in ("/docs", "/redoc", "/docs/redoc.js", "/docs/assets/favicon.png"):
        assert proxy("GET", deployment.prefix + page).status_code == 200


def test_a_404_suggests_a_path_with_the_prefix(app: FastAPI) -> None:
    for root_path, path in [
        ("/todo", "/todo/api/tasks/"),
        ("/todo", "/todo/todo/api//tasks//"),
    ]:
        client = TestClient(app, root_path=root_path)

        detail = client.get(path).json()["detail"]

        assert detail == "Not Found; did you mean /todo/api/tasks?"
    assert client.get("/todo/todo").json()["detail"] == "Not Found; did you mean /todo/?"


@pytest.mark.parametrize("path", ["/todo/api/tasks", "/todo/todo/api/tasks", "/api/tasks"])
def test_the_request_log_has_the_route_without_the_prefix(
    app: FastAPI, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with TestClient(app, root_path="/todo", headers=bearer("ann")) as client:
        assert client.get(path).status_code == 200

    (line,) = [record for record in caplog.records if record.name == "logs"]
    assert vars(line)["route"] == "/api/tasks"


@pytest.mark.parametrize("path", ["/todos/api/tasks", "/other/api/tasks", "/todo/xapi/tasks"])
def test_a_path_that_merely_starts_like_the_prefix_is_not_found(app: FastAPI, path: str) -> None:
    with TestClient(app, root_path="/todo", headers=bearer("ann")) as client:
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("root_path", ["", "/todo"])
def test_a_request_cannot_set_the_prefix_or_the_host(app: FastAPI, root_path: str) -> None:
    lies = {
        "Host": "evil.example",
        "Forwarded": "host=evil.example;proto=https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-Path": "/evil",
        "X-Original-URL": "/evil",
        "X-Rewrite-URL": "/evil",
        "X-Script-Name": "/evil",
        "Script-Name": "/evil",
    }
    with served(app, root_path) as port:
        url = f"http://127.0.0.1:{port}"
        headers = bearer("ann") | lies
        created = httpx2.post(f"{url}/api/tasks", json={"title": "x"}, headers=headers)
        responses = [
            created,
            httpx2.post(f"{url}/api/tasks", json={"title": "y"}, headers=headers),
            httpx2.get(f"{url}/api/tasks?limit=1", headers=headers),
            httpx2.get(f"{url}/api/tasks/", headers=headers),
            httpx2.get(f"{url}/", headers=headers),
            *(httpx2.get(f"{url}/{page}", headers=headers) for page in ("docs", "openapi.json")),
        ]

    assert created.headers["Location"] == f"{root_path}/api/tasks/1"
    for response in responses:
        assert "evil" not in f"{response.headers} {response.text}"
