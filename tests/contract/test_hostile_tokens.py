"""Hostile tokens over HTTP: each gets a 401 quickly, and the reason is logged."""

import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import URL, make_url
from starlette.testclient import TestClient

from main import create_app
from tests.actors import bearer, settings_for
from tests.auth_server import ALGORITHMS, AuthServer, SigningKey, auth_server
from tests.hostile_tokens import HS256, VALID_TOKEN, of_key_set

REFUSAL_LIMIT_SECONDS = 0.05  # CPU time


@pytest.fixture
def server() -> Iterator[AuthServer]:
    with auth_server() as server:
        yield server


@pytest.fixture
def database() -> URL:
    """A database that no refused request reaches."""
    return make_url("sqlite:///unused.db")


@pytest.fixture
def client(server: AuthServer, sqlite_url: URL) -> Iterator[TestClient]:
    """A client of an app that accepts tokens of the secret and of the key set."""
    app = create_app(settings_for(sqlite_url, better_auth_url=server.url, mcp=True))
    with TestClient(app, "http://localhost", raise_server_exceptions=False) as client:
        yield client


API = ("GET", "/api/tasks", b"")
MCP = ("POST", "/mcp", b'{"jsonrpc":"2.0","id":1,"method":"ping"}')


def _send(
    client: TestClient, token: str, request: tuple[str, str, bytes] = API
) -> tuple[int, float]:
    """Return the status and the CPU seconds of the request."""
    method, path, body = request
    header = f"Bearer {token}".encode("utf-8", "surrogatepass")
    headers = [(b"Authorization", header), (b"Content-Type", b"application/json")]
    began = time.process_time()
    response = client.request(method, path, content=body, headers=headers)
    return response.status_code, time.process_time() - began


@pytest.mark.parametrize("algorithm", ["HS256", *ALGORITHMS])
@pytest.mark.parametrize("request_", [API, MCP], ids=["API", "MCP"])
def test_every_hostile_token_is_401_and_cheap_to_refuse(
    client: TestClient, server: AuthServer, algorithm: str, request_: tuple[str, str, bytes]
) -> None:
    if algorithm == "HS256":
        good, hostile = VALID_TOKEN, HS256
    else:
        key = SigningKey(algorithm)
        server.members = [key.member]
        good = key.token(server.claims())
        hostile = of_key_set(key, server.claims(), f"{server.url}/canary")
    assert _send(client, good, request_)[0] == 200

    responses = {name: _send(client, token, request_) for name, token in hostile.items()}
    # If it was slow, repeat it: there may have been a garbage collection.
    responses |= {
        name: _send(client, hostile[name], request_)
        for name, (_, cost) in responses.items()
        if cost > REFUSAL_LIMIT_SECONDS
    }

    assert {name: status for name, (status, _) in responses.items() if status != 401} == {}
    slow = {name: cost for name, (_, cost) in responses.items() if cost > REFUSAL_LIMIT_SECONDS}
    assert slow == {}
    assert set(server.requested) <= {"/api/auth/jwks"}
    slowest = max(cost for _, cost in responses.values())
    print(f"{algorithm}: {len(responses)} hostile tokens, the slowest took {slowest * 1000:.1f} ms")


def test_tokens_of_both_kinds_are_accepted_by_one_app(
    client: TestClient, server: AuthServer
) -> None:
    keys = [SigningKey(algorithm, algorithm) for algorithm in ALGORITHMS]
    server.members = [key.member for key in keys]

    for token in [VALID_TOKEN, *(key.token(server.claims()) for key in keys)]:
        assert _send(client, token)[0] == 200


def test_an_unavailable_auth_server_is_503_if_no_keys_are_cached(
    client: TestClient, server: AuthServer, reasons: Callable[[], list[str]]
) -> None:
    server.status = 500
    token = SigningKey("EdDSA").token(server.claims())

    response = client.get(
        "/api/tasks",
        headers={"Authorization": f"Bearer {token}", "Origin": "http://localhost:3000"},
    )

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    assert response.json() == {
        "detail": "The auth server is not available; try again",
        "status_code": 503,
    }
    assert reasons() == [f"No key set from {server.url}/api/auth/jwks: it responded 500"]
    assert client.get("/api/tasks", headers=bearer("ann")).status_code == 200


KEY = SigningKey("EdDSA")
SESSION_TOKEN = "Two segments: this is Better Auth's session token, not a JWT: call /api/auth/token"
UNUSED_URL = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("settings", "token", "reason"),
    [
        (
            {},
            KEY.token({"sub": "ann"}),
            "Token is signed with EdDSA, but BETTER_AUTH_URL is not set",
        ),
        (
            {"better_auth_secret": None, "better_auth_url": UNUSED_URL},
            VALID_TOKEN,
            "Token is signed with HS256, but BETTER_AUTH_SECRET is not set",
        ),
        (
            {},
            "kXv3.Q1w==",
            SESSION_TOKEN,
        ),
        ({}, HS256["claim: expired"], "Token has expired"),
    ],
)
def test_the_reason_of_a_refusal_is_logged_once_with_the_setting_to_check(
    database: URL,
    settings: dict[str, str | None],
    token: str,
    reason: str,
    reasons: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = create_app(settings_for(database, **settings))

    response = TestClient(app).get("/api/tasks", headers={"Authorization": f"Bearer {token}"})

    assert response.status_code == 401
    assert reasons() == [reason]
    assert len([line for line in caplog.records if line.name != "httpx2"]) == 1
    assert token not in caplog.text
    assert "BETTER_AUTH" not in response.text


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (
            {"iss": "http://a\n"},
            "Token has the iss 'http://a\\n', not {url} or {url}/api/auth: see JWT_ISSUER",
        ),
        ({"aud": ["x"]}, "Token has the aud ['x'], not {url}: see JWT_AUDIENCE"),
    ],
)
def test_a_wrong_issuer_or_audience_is_logged_with_the_setting_to_check(
    client: TestClient,
    server: AuthServer,
    claims: dict[str, object],
    reason: str,
    reasons: Callable[[], list[str]],
) -> None:
    server.members = [KEY.member]

    assert _send(client, KEY.token(server.claims(**claims)))[0] == 401
    assert reasons() == [reason.format(url=server.url)]
