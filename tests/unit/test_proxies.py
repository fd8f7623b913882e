"""Fetching key sets through the proxy of the environment."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from errors import AuthServerUnavailableError
from jwks import KeySet, VerificationKey
from tests.auth_server import AuthServer, SigningKey, auth_server

ED = SigningKey("EdDSA")
PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server() -> Iterator[AuthServer]:
    """A server that acts as an auth server and as a proxy to one."""
    with auth_server() as server:
        server.members = [ED.member]
        yield server


def _get(key_set: KeySet) -> VerificationKey:
    """Return the key. This runs in its own thread because of coverage: see test_key_set.run."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, key_set.get("k1")).result()["EdDSA"]


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("credentials", ["", "ann:s3cret@", "http://ann:s3cret@"])
def test_a_public_host_is_fetched_through_the_proxy_and_the_proxy_is_logged(
    server: AuthServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    credentials: str,
) -> None:
    proxy = f"127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv(name, credentials + proxy)
    key_set = KeySet("http://auth.example.com/keys?p=s3cret")

    key = _get(key_set)

    assert [key.public["x"], *server.requested] == [
        ED.member["x"],
        "http://auth.example.com/keys?p=s3cret",
    ]
    assert [line.getMessage() for line in caplog.records if line.name == "jwks"] == [
        f"Reading the key set from http://auth.example.com/keys (through the proxy {proxy})"
    ]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "auth",
        "auth.localhost",
        "auth.svc.cluster.local",
        "host.docker.internal.",
        "127.0.0.1",
        "10.1.2.3",
        "[::1]",
        "[fd00::1]",
    ],
)
def test_a_private_host_is_fetched_directly(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for name in PROXIES[:3]:
        monkeypatch.setenv(name, "http://proxy.example:3128")

    assert KeySet(f"http://{host}/jwks").name == f"http://{host}/jwks"
    assert KeySet(f"https://{host}/jwks").name == f"https://{host}/jwks"


def test_a_proxy_is_not_used_for_an_auth_server_on_loopback(
    server: AuthServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")

    key = _get(KeySet(f"{server.url}/jwks"))

    assert key.public["x"] == ED.member["x"]


def test_a_host_in_no_proxy_is_fetched_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", ".example.com")

    assert KeySet("https://auth.example.com").name == "https://auth.example.com"
    assert KeySet("https://auth.example.org").name == (
        "https://auth.example.org (through the proxy proxy.example:3128)"
    )


@pytest.mark.parametrize(
    "proxy",
    [
        "ftp://ann:s3cret@h",
        "socks5://ann:s3cret@h",
        "http://ann:s3/cret@h:x",
    ],
)
def test_an_unusable_proxy_is_logged_without_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, proxy: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(AuthServerUnavailableError):
        _get(KeySet("https://auth.example.com/jwks"))

    assert caplog.messages[-1].endswith(": the proxy that the environment names cannot be used")
    assert "cret" not in caplog.text
