"""Fetch, validate, cache and refresh the auth server's key set (RFC 7517)."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_address
from types import MappingProxyType
from typing import Never
from urllib.request import getproxies, proxy_bypass

import httpx2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256
from jose import jwk
from jose.backends.base import Key
from jose.utils import base64_to_long, base64url_decode
from typing_extensions import override

from errors import RETRY_AFTER_SECONDS, AuthServerUnavailableError

FRESH_SECONDS = 300
# The least time between two fetches for unknown kids, which may belong to new keys but which anyone
# can send, and between the start of a failed refresh and the next attempt.
REFETCH_SECONDS = 10
FETCH_TIMEOUT_SECONDS = 5
KEY_SET_MAX_BYTES = 64 * 1024
KEY_SET_HINT = (
    "Check BETTER_AUTH_URL (add Better Auth's basePath if it is not /api/auth), "
    "or set JWKS_URL to the URL of the key set"
)
IGNORED_MAX_CHARS = 500
RSA_MIN_BITS = 2048  # RFC 7518, 3.3
# OpenSSL's limits. A long exponent makes verification slow.
RSA_MAX_BITS = 16384
RSA_EXPONENT_MAX_BITS = 64

# Key type and curve by algorithm (RFC 7518, 6; RFC 8037, 2). EdDSA and Ed25519 are two names of the
# same algorithm (RFC 9864); Better Auth uses EdDSA.
KEY_TYPES: dict[str, dict[str, str]] = {
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
    "Ed25519": {"kty": "OKP", "crv": "Ed25519"},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "ES512": {"kty": "EC", "crv": "P-521"},
    "RS256": {"kty": "RSA"},
    "PS256": {"kty": "RSA"},
}
# RFC 6761, 6762 and ICANN's resolution 2024.07.29.06.
PRIVATE_DOMAINS = (".localhost", ".local", ".internal")
PUBLIC_PARAMETERS = {"kty", "crv", "x", "y", "n", "e"}
# Statuses below 500 that do not mean that the URL is wrong.
STATUSES_UNRELATED_TO_URL = {
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}

logger = logging.getLogger(__name__)


class Ed25519Key(Key):
    """EdDSA (RFC 8037), which python-jose does not support."""

    def __init__(self, key: Mapping[str, str], algorithm: str) -> None:
        super().__init__(key, algorithm)
        self._public = Ed25519PublicKey.from_public_bytes(base64url_decode(key["x"].encode()))

    @override
    def verify(self, msg: bytes, sig: bytes) -> bool:
        try:
            self._public.verify(sig, msg)
        except InvalidSignature:
            return False
        return True


class PS256Key(Key):
    """RSA with PSS (RFC 7518, 3.5), which python-jose does not support."""

    _padding = padding.PSS(padding.MGF1(SHA256()), SHA256.digest_size)

    def __init__(self, key: Mapping[str, str], algorithm: str) -> None:
        super().__init__(key, algorithm)
        numbers = RSAPublicNumbers(e=base64_to_long(key["e"]), n=base64_to_long(key["n"]))
        self._public = numbers.public_key()

    @override
    def verify(self, msg: bytes, sig: bytes) -> bool:
        try:
            self._public.verify(sig, msg, self._padding, SHA256())
        except InvalidSignature:
            return False
        return True


jwk.register_key("EdDSA", Ed25519Key)
jwk.register_key("Ed25519", Ed25519Key)
jwk.register_key("PS256", PS256Key)


class VerificationKey:
    """A key of the set, for one of the algorithms that it allows; `key` is python-jose's."""

    def __init__(self, kid: str, algorithm: str, public: dict[str, str]) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.public = public
        self.key = jwk.construct(public, algorithm)


# The keys of one kid, by algorithm.
Keys = Mapping[str, VerificationKey]
NO_KEYS: Keys = MappingProxyType({})


class KeySet:
    """The auth server's keys, by `kid`.

    A cached key is returned at once, even during a refresh or an outage of the auth server.
    Concurrent callers share one fetch.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = url.partition("?")[0]  # for the log: the query may contain an API key
        if (proxy := _proxy_for(url)) is not None:
            host = proxy.partition("://")[2].rpartition("@")[2]
            self.name += f" (through the proxy {host})"
            logger.info("Reading the key set from %s", self.name)
        self._keys: dict[str, dict[str, VerificationKey]] = {}
        self._fetch: asyncio.Task[None] | None = None
        self._problem: str | None = None  # of the last fetch
        self._has_keys = False  # whether a fetch has succeeded
        self._started_at = self._fresh_until = self._unknown_until = float("-inf")

    def known(self, kid: str) -> Keys:
        """Return the cached keys of the `kid`. Refresh a stale set in the background."""
        now = time.monotonic()
        if self._has_keys and now >= self._fresh_until:
            self._start(now)
            self._fresh_until = now + REFETCH_SECONDS  # if the fetch fails
        return self._keys.get(kid, NO_KEYS)

    async def get(self, kid: str) -> Keys:
        """Return the keys of the `kid`. If none are cached, fetch the set, unless it is too soon.

        Raises:
            AuthServerUnavailableError: no fetch has succeeded so far.

        """
        asked_at = time.monotonic()
        keys = self.known(kid)
        while not keys and (self._fetch is not None or self._may_fetch_for(asked_at)):
            await asyncio.shield(self._start(asked_at))
            keys = self._keys.get(kid, NO_KEYS)
        if not self._has_keys:
            raise AuthServerUnavailableError(self._problem)
        return keys

    def _may_fetch_for(self, asked_at: float) -> bool:
        """Return whether an unknown kid may cause a fetch now, and count it if so."""
        if self._started_at >= asked_at:
            return False  # a fetch started after the caller asked, and the kid was not in it
        if not self._has_keys:
            return asked_at - self._started_at >= RETRY_AFTER_SECONDS
        if asked_at < self._unknown_until:
            return False
        self._unknown_until = asked_at + REFETCH_SECONDS
        return True

    def _start(self, now: float) -> asyncio.Task[None]:
        """Start a fetch, unless one is running."""
        if self._fetch is None:
            self._started_at = now
            self._fetch = asyncio.create_task(self._fetch_and_replace())
        return self._fetch

    async def _fetch_and_replace(self) -> None:
        try:
            keys, ignored = _parse_members(_read_members(await _download(self._url)))
        # OSError: a CA file or a free file descriptor may be missing.
        except (httpx2.HTTPError, OSError, ValueError) as error:
            self._report(f"No key set from {self.name}: {str(error) or type(error).__name__}")
        else:
            self._keys = {
                kid: {name: self._cached_or(key) for name, key in by_algorithm.items()}
                for kid, by_algorithm in keys.items()
            }
            self._has_keys = True
            self._fresh_until = time.monotonic() + FRESH_SECONDS
            self._report(ignored and f"Ignored keys in the set of {self.name}: {ignored}")
        finally:
            self._fetch = None

    def _cached_or(self, key: VerificationKey) -> VerificationKey:
        """Return the cached object of an unchanged key, since accepted tokens refer to it."""
        old = self._keys.get(key.kid, NO_KEYS).get(key.algorithm)
        return old if old is not None and old.public == key.public else key

    def _report(self, problem: str | None) -> None:
        """Log a problem when it first occurs and when it is over, not at each fetch."""
        if problem != self._problem:
            if problem is None:
                logger.info("Read the whole key set from %s", self.name)
            else:
                logger.warning("%s", problem)
        self._problem = problem


def _proxy_for(url: str) -> str | None:
    """Return the proxy that the environment sets, or None for a host in a private network."""
    scheme, host = httpx2.URL(url).scheme, httpx2.URL(url).host.rstrip(".")
    try:
        is_private = not ip_address(host).is_global
    except ValueError:
        is_private = "." not in host or host.endswith(PRIVATE_DOMAINS)
    if is_private or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _transport(url: str) -> httpx2.AsyncHTTPTransport:
    try:
        return httpx2.AsyncHTTPTransport(proxy=_proxy_for(url))
    except (ImportError, httpx2.InvalidURL, ValueError) as error:  # may repeat the password
        raise ValueError("the proxy that the environment names cannot be used") from error


async def _download(url: str) -> bytes:
    """Download the URL, without redirects, within FETCH_TIMEOUT_SECONDS and KEY_SET_MAX_BYTES."""
    body = b""
    # Not compressed: a small response could expand to a huge one.
    headers = {
        "Accept-Encoding": "identity",
        "Accept": "application/jwk-set+json, application/json",
    }
    async with (
        asyncio.timeout(FETCH_TIMEOUT_SECONDS),
        httpx2.AsyncClient(
            follow_redirects=False, headers=headers, transport=_transport(url)
        ) as client,
        client.stream("GET", url) as response,
    ):
        status = response.status_code
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in STATUSES_UNRELATED_TO_URL:
            raise ValueError(f"it responded {status}")
        if status != HTTPStatus.OK:  # also redirects: only the configured URL is trusted
            raise ValueError(f"it responded {status}. {KEY_SET_HINT}")
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > KEY_SET_MAX_BYTES:
                raise ValueError(
                    f"its response is larger than {KEY_SET_MAX_BYTES} bytes. {KEY_SET_HINT}"
                )
    return body


def _read_members(body: bytes) -> list[object]:
    try:
        # UTF-8 only (RFC 8259, 8.1): json.loads would also guess UTF-16 and UTF-32 from bytes.
        document = json.loads(body.decode("utf-8-sig"), parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        document = None
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise ValueError(f"its response is not a key set. {KEY_SET_HINT}")  # noqa: TRY004  # of data
    return members


def refuse_constant(name: str) -> Never:
    """Refuse NaN, Infinity and -Infinity, which `json` accepts but JSON forbids (RFC 8259, 6)."""
    raise ValueError(f"{name} is not JSON")


def _parse_members(
    members: list[object],
) -> tuple[dict[str, dict[str, VerificationKey]], str | None]:
    """Return the usable keys by `kid` and algorithm, and why others are ignored (RFC 7517, 5).

    Members may share a `kid` if their types or algorithms differ (RFC 7517, 4.5). Of two members
    with the same `kid` and algorithm, the first is used.
    """
    keys: dict[str, dict[str, VerificationKey]] = {}
    ignored: list[str] = []
    for number, member in enumerate(members, 1):
        try:
            usable = _parse_member(member)
        except Exception as error:  # noqa: BLE001  # the libraries raise many types
            reason = str(error) if isinstance(error, ValueError) else type(error).__name__
            ignored.append(f"number {number}: {reason}")
        else:
            for key in usable:
                keys.setdefault(key.kid, {}).setdefault(key.algorithm, key)
    return keys, "; ".join(ignored)[:IGNORED_MAX_CHARS] or None


def _parse_member(member: object) -> list[VerificationKey]:
    """Return the member's key for each algorithm that it allows.

    Raises:
        ValueError: the member cannot verify tokens. python-jose and cryptography raise other
            exceptions too if it is malformed.

    """
    if not isinstance(member, dict):
        raise ValueError("not an object")  # noqa: TRY004  # of data, not of an argument
    # Some servers write null for parameters that they do not set.
    stated = {name: value for name, value in member.items() if value is not None}
    kid, operations = stated.get("kid"), stated.get("key_ops", ["verify"])
    if not isinstance(kid, str):
        raise ValueError("its kid is not a string")  # noqa: TRY004  # of data
    # RFC 7517, 4.2 and 4.3.
    if stated.get("use", "sig") != "sig" or not (
        isinstance(operations, list) and "verify" in operations
    ):
        raise ValueError("not for verifying signatures")
    # Leave out the private key, which a server may publish by mistake.
    public = {name: stated[name] for name in PUBLIC_PARAMETERS & stated.keys()}
    # python-jose would treat a number as a length and allocate that many bytes.
    if not all(isinstance(value, str) for value in public.values()):
        raise ValueError("a parameter is not a string")
    # RFC 7517, 4.4: `alg` is optional. Without it, the type and the curve decide.
    algorithms = [
        name
        for name, wanted in KEY_TYPES.items()
        if stated.get("alg", name) == name and wanted.items() <= public.items()
    ]
    if not algorithms:
        raise ValueError("its kty, crv and alg match no accepted algorithm")
    if public["kty"] == "RSA":
        _check_rsa_bounds(public)
    return [VerificationKey(kid, name, public) for name in algorithms]


def _check_rsa_bounds(public: Mapping[str, str]) -> None:
    bits = base64_to_long(public["n"]).bit_length()
    if not RSA_MIN_BITS <= bits <= RSA_MAX_BITS:
        raise ValueError(f"{bits} bits, not {RSA_MIN_BITS} to {RSA_MAX_BITS}")
    if base64_to_long(public["e"]).bit_length() > RSA_EXPONENT_MAX_BITS:
        raise ValueError(f"its exponent has more than {RSA_EXPONENT_MAX_BITS} bits")
