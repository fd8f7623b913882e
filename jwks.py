"""The key set of the auth server (RFC 7517): fetched, checked, cached, and fetched again."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
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
# An unknown kid may be a new key, or made up: anyone can send one.
UNKNOWN_KID_SECONDS = 10
FETCH_TIMEOUT_SECONDS = 5
KEY_SET_MAX_BYTES = 64 * 1024
RSA_MIN_BITS = 2048  # RFC 7518, 3.3

# What a key of each algorithm must be (RFC 7518, 6; RFC 8037, 2). RFC 9864 names EdDSA over
# Ed25519 anew; Better Auth says EdDSA.
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

logger = logging.getLogger(__name__)


class Ed25519Key(Key):
    """EdDSA (RFC 8037), which python-jose does not have."""

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
    """RSA with PSS (RFC 7518, 3.5), which python-jose does not have."""

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
    """A usable member of the set: the algorithm it is for, and python-jose's key."""

    def __init__(self, member: Mapping[str, Any]) -> None:
        """Build the key.

        Raises:
            ValueError: the member is not one to verify tokens with. python-jose and cryptography
                raise others as well, on members that are malformed.

        """
        self.member = member
        self.algorithm: str = member["alg"]
        wanted = KEY_TYPES[self.algorithm]
        if any(member.get(name) != value for name, value in wanted.items()):
            raise ValueError("is of another type than its algorithm")
        # RFC 7517, 4.2 and 4.3: absent, or for signatures.
        if member.get("use", "sig") != "sig" or "verify" not in list(
            member.get("key_ops", ["verify"])
        ):
            raise ValueError("is not for verifying")
        public = {name: member[name] for name in PUBLIC_PARAMETERS & member.keys()}
        self.key = jwk.construct(public, self.algorithm)
        if wanted["kty"] == "RSA" and base64_to_long(member["n"]).bit_length() < RSA_MIN_BITS:
            raise ValueError(f"is shorter than {RSA_MIN_BITS} bits")


class KeySet:
    """The auth server's keys by their `kid`.

    A known key is given at once, also while the set is fetched anew and while the auth server is
    away. One fetch at a time serves all who wait for one.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = url.partition("?")[0]  # for the log: a query may hold a key of its own
        if (proxy := _proxy_for(url)) is not None:
            host = proxy.partition("://")[2].rpartition("@")[2]
            self.name += f" (through the proxy {host})"
            logger.info("Reading the key set from %s", self.name)
        self._keys: dict[str, VerificationKey] = {}
        self._fetch: asyncio.Task[None] | None = None
        self._answered = False
        self._started_at = self._fresh_until = self._unknown_until = float("-inf")

    def known(self, kid: str) -> VerificationKey | None:
        """Give a key that is had already; where the set is old, fetch it anew meanwhile."""
        now = time.monotonic()
        if self._answered and now >= self._fresh_until:
            self._start(now)
            self._fresh_until = now + UNKNOWN_KID_SECONDS  # should it fail
        return self._keys.get(kid)

    async def get(self, kid: str) -> VerificationKey | None:
        """Give the key of that `kid`, fetching the set where that may help.

        Raises:
            AuthServerUnavailableError: no key was ever had, and the auth server does not answer.

        """
        asked_at = time.monotonic()
        key = self.known(kid)
        while key is None and (self._fetch is not None or self._may_fetch_for(asked_at)):
            await asyncio.shield(self._start(asked_at))
            key = self._keys.get(kid)
        if not self._answered:
            raise AuthServerUnavailableError
        return key

    def _may_fetch_for(self, asked_at: float) -> bool:
        """Limit the fetches that unknown kids can cause, whoever sends them."""
        if self._started_at >= asked_at:
            return False  # what is there is newer than the question
        if not self._answered:
            return asked_at - self._started_at >= RETRY_AFTER_SECONDS
        if asked_at < self._unknown_until:
            return False
        self._unknown_until = asked_at + UNKNOWN_KID_SECONDS
        return True

    def _start(self, now: float) -> asyncio.Task[None]:
        """Start a fetch, unless one is under way."""
        if self._fetch is None:
            self._started_at = now
            self._fetch = asyncio.create_task(self._fetch_and_replace())
        return self._fetch

    async def _fetch_and_replace(self) -> None:
        try:
            members = _members(await _download(self._url))
        except (httpx2.HTTPError, TimeoutError, ValueError, RecursionError) as error:
            logger.warning("No key set from %s: %s", self.name, str(error) or type(error).__name__)
        else:
            # A key that stays is the same object, by which the tokens that it verified are known.
            self._keys = {
                kid: had if had is not None and had.member == key.member else key
                for kid, key in members.items()
                for had in [self._keys.get(kid)]
            }
            self._answered = True
            self._fresh_until = time.monotonic() + FRESH_SECONDS
        finally:
            self._fetch = None


def _proxy_for(url: str) -> str | None:
    """Give the proxy that the environment names, unless the host is in a private network."""
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
    except (ImportError, httpx2.InvalidURL, ValueError) as error:  # whose messages may repeat it
        raise ValueError("the proxy that the environment names cannot be used") from error


async def _download(url: str) -> bytes:
    """Download within FETCH_TIMEOUT_SECONDS and KEY_SET_MAX_BYTES, from this URL and no other."""
    body = b""
    # Not compressed, or little that is sent could become much that is had.
    headers = {"Accept-Encoding": "identity", "Accept": "application/json"}
    async with (
        asyncio.timeout(FETCH_TIMEOUT_SECONDS),
        httpx2.AsyncClient(
            follow_redirects=False, headers=headers, transport=_transport(url)
        ) as client,
        client.stream("GET", url) as response,
    ):
        if response.status_code != httpx2.codes.OK:
            raise ValueError(f"it answered {response.status_code}")
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > KEY_SET_MAX_BYTES:
                raise ValueError(f"it is larger than {KEY_SET_MAX_BYTES} bytes")
    return body


def _members(body: bytes) -> dict[str, VerificationKey]:
    """Give the usable members by `kid`; the others are stepped over (RFC 7517, 5)."""
    document = json.loads(body)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("it is no JWK set")  # noqa: TRY004  # of the answer, not of an argument
    members: dict[str, VerificationKey] = {}
    for member in document["keys"]:
        try:
            members.setdefault(_kid(member), VerificationKey(member))
        except Exception as error:  # noqa: BLE001  # whatever a malformed member makes them raise
            logger.warning("Stepped over a key: %s", type(error).__name__)
    return members


def _kid(member: Mapping[str, Any]) -> str:
    if not isinstance(member["kid"], str):
        raise TypeError("kid is not a string")
    return member["kid"]
