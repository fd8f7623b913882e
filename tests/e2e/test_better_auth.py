"""Tokens of a real Better Auth server: access tokens are accepted, its other tokens are not."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jose import jwt
from sqlalchemy import URL
from starlette.testclient import TestClient

from main import create_app
from tests.actors import SECRET, settings_for
from tests.auth_server import auth_server
from tests.e2e.conftest import needs_node
from tests.e2e.server import Server
from tests.hostile_tokens import flip

pytestmark = needs_node

KEYS = ["EdDSA", "ES256", "ES512", "RS256", "PS256"]
SCRIPT = Path(__file__).with_name("better_auth.mjs")
LIMIT_SECONDS = 15
BASE_PATH = "/api/auth"
SESSION_TOKEN = "Two segments: this is Better Auth's session token, not a JWT: call /api/auth/token"


NUMBERS = count()

Start = Callable[..., Server]
Serve = Callable[..., TestClient]


class SignedUp:
    """A user of a Better Auth server, with the cookies of their session."""

    def __init__(self, server: Server, base_path: str = BASE_PATH) -> None:
        self.base_path = base_path
        self.browser = httpx2.Client(base_url=server.url, headers={"Origin": server.url})
        email = f"ann-{next(NUMBERS)}@example.com"
        person = {"name": "Ann", "email": email, "password": "correct horse"}
        self.browser.post(f"{base_path}/sign-up/email", json=person).raise_for_status()

    def token(self) -> str:
        response = self.browser.get(f"{self.base_path}/token").raise_for_status()
        return str(response.json()["token"])

    def sign(self, **payload: object) -> str:
        """Make the server sign a payload with its own key."""
        return str(self.browser.post("/sign", json=payload).raise_for_status().json()["token"])

    def cookie(self, name: str) -> str:
        """Return the Better Auth cookie whose name ends with this text."""
        (value,) = [v for full, v in self.browser.cookies.items() if full.endswith(name)]
        return value


SignUp = Callable[..., SignedUp]


@contextmanager
def _started(frontend: Path, environment: dict[str, str]) -> Iterator[Start]:
    """Start Better Auth servers with options for these tests, and stop them at the end."""
    script = frontend / SCRIPT.name
    shutil.copy(SCRIPT, script)
    servers: list[Server] = []

    def start(algorithm: str, **variables: str) -> Server:
        own = {"JWT_ALG": algorithm, "BETTER_AUTH_SECRET": SECRET.get_secret_value()}
        server = Server(["node", str(script), "{port}"], frontend, environment | own | variables)
        servers.append(server)
        return server.wait(f"{variables.get('BASE_PATH', BASE_PATH)}/ok")

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def better_auth(frontend: Path, environment: dict[str, str]) -> Iterator[Start]:
    """Start Better Auth servers for one test."""
    with _started(frontend, environment) as start:
        yield start


@pytest.fixture(scope="module")
def algorithm(request: pytest.FixtureRequest) -> str:
    parameter: str = request.param
    return parameter


@pytest.fixture(scope="module")
def server(frontend: Path, environment: dict[str, str], algorithm: str) -> Iterator[Server]:
    """A Better Auth server that signs with this algorithm. Each test has users of its own."""
    with _started(frontend, environment) as start:
        yield start(algorithm)


@pytest.fixture
def sign_up() -> Iterator[Callable[..., SignedUp]]:
    """Sign a user up at a Better Auth server."""
    with ExitStack() as browsers:

        def start(server: Server, base_path: str = BASE_PATH) -> SignedUp:
            user = SignedUp(server, base_path)
            browsers.callback(user.browser.close)
            return user

        yield start


@pytest.fixture
def serve(sqlite_url: URL) -> Iterator[Callable[..., TestClient]]:
    """Start the app with the settings for a Better Auth server."""
    with ExitStack() as clients:

        def start(server: Server, **settings: str) -> TestClient:
            app = create_app(settings_for(sqlite_url, better_auth_url=server.url, **settings))
            return clients.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start


def _status(client: TestClient, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return client.get("/api/tasks", headers=headers).status_code


def _claims(token: str) -> dict[str, Any]:
    return jwt.get_unverified_claims(token)


@pytest.mark.parametrize("algorithm", [*KEYS, "HS256"], indirect=True)
def test_a_real_token_is_accepted_unless_a_bit_is_flipped(
    server: Server, serve: Serve, sign_up: SignUp, algorithm: str
) -> None:
    client, token = serve(server), sign_up(server).token()

    created = client.post(
        "/api/tasks", json={"title": "x"}, headers={"Authorization": f"Bearer {token}"}
    )

    assert jwt.get_unverified_header(token)["alg"] == algorithm
    assert created.status_code == 201
    assert created.json()["user_id"] == _claims(token)["sub"]
    assert [_status(client, flip(token, segment, 9, 3)) for segment in range(3)] == [401, 401, 401]


def test_better_auth_url_may_contain_a_base_path(
    better_auth: Start, sign_up: SignUp, sqlite_url: URL, reasons: Callable[[], list[str]]
) -> None:
    server = better_auth("EdDSA", BASE_PATH="/auth")
    token = sign_up(server, "/auth").token()
    statuses = []

    for url in (server.url, f"{server.url}/auth"):
        app = create_app(settings_for(sqlite_url, better_auth_url=url))
        with TestClient(app, raise_server_exceptions=False) as client:
            statuses.append(_status(client, token))

    assert statuses == [503, 200]
    (reason,) = reasons()
    assert reason == (
        f"No key set from {server.url}/api/auth/jwks: it responded 404. Check BETTER_AUTH_URL (add "
        "Better Auth's basePath if it is not /api/auth), or set JWKS_URL to the URL of the key set"
    )


def test_the_key_set_may_have_another_path(
    better_auth: Start, serve: Serve, sign_up: SignUp
) -> None:
    server = better_auth("EdDSA", JWKS_PATH="/keys.json")
    client = serve(server, jwks_url=f"{server.url}/api/auth/keys.json")

    assert _status(client, sign_up(server).token()) == 200


@pytest.mark.parametrize("algorithm", KEYS, indirect=True)
def test_a_key_set_without_alg_verifies_a_real_token(
    server: Server, serve: Serve, sign_up: SignUp, algorithm: str
) -> None:
    token = sign_up(server).token()
    with auth_server() as key_set:
        # Better Auth before version 1.3 published keys without it.
        for member in httpx2.get(f"{server.url}/api/auth/jwks").json()["keys"]:
            assert member.pop("alg") == algorithm
            key_set.members.append(member)
        client = serve(server, jwks_url=f"{key_set.url}/jwks")

        assert _status(client, token) == 200
        assert [_status(client, flip(token, part, 9, 3)) for part in range(3)] == [401, 401, 401]


@pytest.mark.parametrize("algorithm", KEYS, indirect=True)
def test_a_real_token_with_other_claims_or_of_another_key_is_refused(
    server: Server, better_auth: Start, serve: Serve, sign_up: SignUp, algorithm: str
) -> None:
    client, ann = serve(server), sign_up(server)
    claims = _claims(ann.token())
    stranger = sign_up(better_auth(algorithm))

    def without(name: str) -> dict[str, Any]:
        return {other: value for other, value in claims.items() if other != name}

    assert _status(client, ann.sign(**claims)) == 200
    for token in [
        ann.sign(**claims | {"aud": "http://other.example"}),
        ann.sign(**claims | {"iss": "http://other.example"}),
        ann.sign(**claims | {"exp": int(time.time()) - 1}),
        ann.sign(**without("sub")),
        stranger.sign(**claims),
    ]:
        assert _status(client, token) == 401


def test_a_rotated_key_is_accepted_at_once_and_the_old_key_remains_valid(
    better_auth: Start, serve: Serve, sign_up: SignUp
) -> None:
    server = better_auth("EdDSA", ROTATION_SECONDS="2")
    client, ann = serve(server), sign_up(server)
    old = ann.token()
    assert _status(client, old) == 200

    new = old
    deadline = time.monotonic() + LIMIT_SECONDS
    while _kid(new) == _kid(old) and time.monotonic() < deadline:
        new = ann.token()

    assert _kid(new) != _kid(old)
    assert [_status(client, token) for token in (new, old)] == [200, 200]


def test_cached_keys_keep_working_without_the_auth_server(
    better_auth: Start, serve: Serve, sign_up: SignUp
) -> None:
    server = better_auth("EdDSA")
    client, ann = serve(server), sign_up(server)
    first, second = ann.token(), ann.sign(**_claims(ann.token()) | {"jti": "2"})
    assert _status(client, first) == 200

    server.stop()

    assert [_status(client, token) for token in (first, second)] == [200, 200]


@pytest.mark.parametrize("algorithm", ["EdDSA", "HS256"])
def test_session_cookies_and_email_tokens_are_refused(
    better_auth: Start,
    serve: Serve,
    sign_up: SignUp,
    algorithm: str,
    reasons: Callable[[], list[str]],
) -> None:
    server = better_auth(algorithm)
    client, ann = serve(server), sign_up(server)
    (mailed,) = httpx2.get(f"{server.url}/sent").json()
    cookie, session = ann.cookie("session_data"), ann.cookie("session_token")

    assert [_status(client, token) for token in (cookie, mailed, session)] == [401, 401, 401]
    assert reasons() == [
        {
            "EdDSA": "Token is Better Auth's session cookie, not an access token",
            "HS256": "Token has no sub of 1 to 255 characters",
        }[algorithm],
        "Token has no sub of 1 to 255 characters",
        SESSION_TOKEN,
    ]


def _kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])
