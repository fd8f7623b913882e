"""The key set: which keys are used, when it is fetched, and what happens if that fails."""

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from jose import jws
from sqlalchemy import make_url

import auth
import jwks
from auth import InvalidTokenError, TokenVerifier
from errors import AuthServerUnavailableError
from jwks import KeySet
from tests.actors import settings_for
from tests.auth_server import ALGORITHMS, AuthServer, SigningKey, auth_server, b64
from tests.auth_server import jws as jws_of
from tests.hostile_tokens import of_key_set

T = TypeVar("T")

KEYS = {algorithm: SigningKey(algorithm) for algorithm in ALGORITHMS}
ED = KEYS["EdDSA"]


@pytest.fixture
def server() -> Iterator[AuthServer]:
    """An auth server whose only key is ED."""
    with auth_server() as server:
        server.members = [ED.member]
        yield server


@pytest.fixture
def verifier(server: AuthServer) -> TokenVerifier:
    return TokenVerifier(settings_for(make_url("sqlite:///unused.db"), better_auth_url=server.url))


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine in its own thread.

    On Python 3.11, a connection of anyio stops the tracing of the frames that await it. Coverage
    would then miss the rest of the test.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@pytest.fixture
def make_stale(verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the cached key set stale, and all later ones as soon as they are fetched."""

    def make_stale() -> None:
        monkeypatch.setattr(jwks, "FRESH_SECONDS", 0)
        monkeypatch.setattr(jwks, "REFETCH_SECONDS", 0)
        _key_set(verifier)._fresh_until = 0  # noqa: SLF001  # simulates that five minutes have passed

    return make_stale


def _key_set(verifier: TokenVerifier) -> KeySet:
    key_set = verifier._key_set  # noqa: SLF001
    assert key_set is not None
    return key_set


def _run(scenario: Callable[[], Coroutine[Any, Any, None]], verifier: TokenVerifier) -> None:
    """Run the scenario, then wait for a fetch that is still running."""

    async def whole() -> None:
        await scenario()
        await asyncio.gather(*filter(None, [_key_set(verifier)._fetch]))  # noqa: SLF001

    run(whole())


async def _wait_for_fetch(verifier: TokenVerifier, server: AuthServer, times: int) -> None:
    """Wait until a background fetch is done."""
    async with asyncio.timeout(10):
        while server.fetches < times or _key_set(verifier)._fetch is not None:  # noqa: SLF001, ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_each_algorithm_is_accepted(
    server: AuthServer, verifier: TokenVerifier, algorithm: str
) -> None:
    server.members = [KEYS[algorithm].member]

    user = run(verifier.verify(KEYS[algorithm].token(server.claims(name="Ann"))))

    assert (user.id, user.name) == ("ann", "Ann")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hostile_tokens_of_each_algorithm_are_refused(
    server: AuthServer, verifier: TokenVerifier, algorithm: str
) -> None:
    server.members = [KEYS[algorithm].member]

    async def accepted() -> list[str]:
        hostile = of_key_set(KEYS[algorithm], server.claims(), f"{server.url}/canary")
        names = []
        for name, token in hostile.items():
            try:
                names.append(f"{name}: {await verifier.verify(token)}")
            except InvalidTokenError:
                continue
        return names

    assert run(accepted()) == []
    assert set(server.requested) == {"/api/auth/jwks"}


def test_a_token_may_have_several_audiences(server: AuthServer, verifier: TokenVerifier) -> None:
    token = ED.token(server.claims(aud=["http://other.example", server.url]))

    assert run(verifier.verify(token)).id == "ann"


def test_issuer_and_audience_can_be_configured(server: AuthServer) -> None:
    settings = settings_for(
        make_url("sqlite:///unused.db"),
        better_auth_url=server.url,
        jwt_issuer="the issuer",
        jwt_audience="the audience",
    )
    token = ED.token(server.claims(iss="the issuer", aud="the audience"))

    assert run(TokenVerifier(settings).verify(token)).id == "ann"


@pytest.mark.parametrize("audience", ["b", ["a"], ["c", "b"]])
def test_one_of_several_configured_audiences_is_enough(
    server: AuthServer, audience: object
) -> None:
    settings = settings_for(
        make_url("sqlite:///unused.db"), better_auth_url=server.url, jwt_audience="a, b"
    )
    verifier = TokenVerifier(settings)

    assert run(verifier.verify(ED.token(server.claims(aud=audience)))).id == "ann"
    with pytest.raises(InvalidTokenError) as refused:
        run(verifier.verify(ED.token(server.claims(aud="c"))))
    assert refused.value.hint == "Token has the aud 'c', not a or b: see JWT_AUDIENCE"


@pytest.mark.parametrize(
    ("path", "others", "asked"),
    [
        ("/auth", {}, "/auth/jwks"),
        ("/api/auth/", {}, "/api/auth/jwks"),
        ("", {"jwks_url": "{server}/.well-known/jwks.json?p=1"}, "/.well-known/jwks.json?p=1"),
    ],
)
def test_the_key_set_is_fetched_from_the_configured_url(
    server: AuthServer, path: str, others: dict[str, str], asked: str
) -> None:
    given = {name: url.format(server=server.url) for name, url in others.items()}
    settings = settings_for(
        make_url("sqlite:///unused.db"), better_auth_url=server.url + path, **given
    )

    assert run(TokenVerifier(settings).verify(ED.token(server.claims()))).id == "ann"
    assert server.requested == [asked]


def _without(member: dict[str, Any], name: str) -> dict[str, Any]:
    return {other: value for other, value in member.items() if other != name}


def _without_alg(algorithm: str) -> dict[str, Any]:
    """Return the key as Better Auth published it before version 1.3, without `alg`."""
    return _without(KEYS[algorithm].member, "alg")


# The algorithms that the type and the curve of a key allow.
ALLOWED_ALGORITHMS = {
    "EdDSA": ["EdDSA", "Ed25519"],
    "Ed25519": ["EdDSA", "Ed25519"],
    "ES256": ["ES256"],
    "ES512": ["ES512"],
    "RS256": ["RS256", "PS256"],
    "PS256": ["RS256", "PS256"],
}


@pytest.mark.parametrize("alg", [{}, {"alg": None}], ids=["absent", "null"])
@pytest.mark.parametrize("of_key", ALGORITHMS)
def test_a_key_without_alg_verifies_the_algorithms_of_its_type_and_curve(
    server: AuthServer, verifier: TokenVerifier, of_key: str, alg: dict[str, Any]
) -> None:
    key = KEYS[of_key]
    server.members = [_without_alg(of_key) | alg]

    async def accepted() -> list[str]:
        names = []
        for algorithm in ALGORITHMS:
            signer = (
                key.signing(algorithm)
                if algorithm in ALLOWED_ALGORITHMS[of_key]
                else KEYS[algorithm]
            )
            try:
                await verifier.verify(signer.token(server.claims()))
            except InvalidTokenError as error:
                assert str(error) == "Token is signed with an algorithm that its key does not allow"  # noqa: PT017  # the other algorithms are accepted
            else:
                names.append(algorithm)
        return names

    assert run(accepted()) == ALLOWED_ALGORITHMS[of_key]


@pytest.mark.parametrize("of_key", ALGORITHMS)
def test_hostile_tokens_are_refused_by_a_key_without_alg_too(
    server: AuthServer, verifier: TokenVerifier, of_key: str
) -> None:
    server.members = [_without_alg(of_key)]
    hostile = of_key_set(KEYS[of_key], server.claims(), f"{server.url}/canary")
    others = set(ALLOWED_ALGORITHMS[of_key]) - {of_key}

    async def accepted() -> list[str]:
        names = []
        for name, token in hostile.items():
            try:
                await verifier.verify(token)
            except InvalidTokenError:
                continue
            names.append(name)
        return names

    # A key without alg is valid for both names of EdDSA, and so is the same signature.
    renamed = {f"{of_key}: says {other}" for other in others if of_key in {"EdDSA", "Ed25519"}}
    assert set(run(accepted())) == renamed
    assert set(server.requested) == {"/api/auth/jwks"}


@pytest.mark.parametrize(
    ("stated", "other"),
    [("EdDSA", "Ed25519"), ("Ed25519", "EdDSA"), ("RS256", "PS256"), ("PS256", "RS256")],
)
def test_a_key_with_alg_verifies_only_that_algorithm(
    server: AuthServer, verifier: TokenVerifier, stated: str, other: str
) -> None:
    server.members = [KEYS[stated].member]

    with pytest.raises(InvalidTokenError) as refused:
        run(verifier.verify(KEYS[stated].signing(other).token(server.claims())))

    assert refused.value.hint == f"Token is signed with {other}, but its key is for {stated}"


def test_keys_with_the_same_kid_are_distinguished_by_algorithm(
    server: AuthServer, verifier: TokenVerifier
) -> None:
    keys = [KEYS["ES256"], ED, KEYS["RS256"], KEYS["RS256"].signing("PS256")]
    encryption = {"kid": "k1", "alg": "RSA-OAEP", "use": "enc", "kty": "RSA"}
    server.members = [encryption, *(key.member for key in keys)]

    for key in keys:
        assert run(verifier.verify(key.token(server.claims()))).id == "ann"


def test_the_first_of_two_keys_with_the_same_kid_and_algorithm_is_used(
    server: AuthServer, verifier: TokenVerifier
) -> None:
    second = SigningKey("EdDSA")
    server.members = [ED.member, second.member, _without(second.member, "alg")]

    assert run(verifier.verify(ED.token(server.claims()))).id == "ann"
    with pytest.raises(InvalidTokenError, match="signature is not valid"):
        run(verifier.verify(second.token(server.claims())))


def test_a_token_without_kid_is_refused_even_if_there_is_one_key(
    server: AuthServer, verifier: TokenVerifier
) -> None:
    token = jws_of({"alg": "EdDSA"}, server.claims(), ED.sign)

    with pytest.raises(InvalidTokenError, match="Token has no kid"):
        run(verifier.verify(token))


UNUSABLE_KEYS: dict[str, Any] = {
    "null": None,
    "text": "key",
    "number": 1,
    "empty": {},
    "no kid": _without(ED.member, "kid"),
    "kid is a number": ED.member | {"kid": 1},
    "kid is null": ED.member | {"kid": None},
    "alg is empty": ED.member | {"alg": ""},
    "alg is unknown": ED.member | {"alg": "XYZ"},
    "alg in lower case": ED.member | {"alg": "eddsa"},
    "no alg, another curve": _without_alg("EdDSA") | {"crv": "X25519"},
    "no alg, P-384": _without_alg("ES256") | {"crv": "P-384"},
    "no alg, secp256k1": _without_alg("ES256") | {"crv": "secp256k1"},
    "no alg, no curve": _without(_without_alg("ES256"), "crv"),
    "no alg, no kty": _without(_without_alg("EdDSA"), "kty"),
    "no alg, a shared secret": {"kid": "k1", "kty": "oct", "k": "c2VjcmV0"},
    "alg is a list": ED.member | {"alg": ["EdDSA"]},
    "alg is HS256": {"kid": "k1", "alg": "HS256", "kty": "oct", "k": "c2VjcmV0"},
    "alg is not for signatures": KEYS["RS256"].member | {"alg": "RSA-OAEP"},
    "alg of another kind": ED.member | {"alg": "ES256"},
    "alg of another curve": KEYS["ES256"].member | {"alg": "ES512"},
    "another kind": ED.member | {"kty": "EC"},
    "another curve": ED.member | {"crv": "Ed448"},
    "for encryption": ED.member | {"use": "enc"},
    "for signing": ED.member | {"key_ops": ["sign"]},
    "key_ops is text": ED.member | {"key_ops": "verify"},
    "key_ops is a number": ED.member | {"key_ops": 1},
    "key_ops is an object": ED.member | {"key_ops": {"verify": True}},
    "key_ops is empty": ED.member | {"key_ops": []},
    "use is a list": ED.member | {"use": ["sig"]},
    "use is empty": ED.member | {"use": ""},
    "no x": _without(ED.member, "x"),
    "x is short": ED.member | {"x": "AAAA"},
    "x is a number": ED.member | {"x": 1},
    "x is a huge number": KEYS["ES256"].member | {"x": 10**15},
    "n is a huge number": KEYS["RS256"].member | {"n": 10**15},
    "e is a number": KEYS["RS256"].member | {"e": 65537},
    "not on the curve": KEYS["ES256"].member | {"x": KEYS["ES256"].member["y"]},
    "no alg, not on the curve": _without_alg("ES512") | {"x": KEYS["ES512"].member["y"]},
    "at the origin": KEYS["ES256"].member | {"x": "AA", "y": "AA"},
    "1024 bits": SigningKey("RS256", bits=1024).member,
    "1024 bits, PSS": SigningKey("PS256", bits=1024).member,
    "no alg, 1024 bits": _without(SigningKey("RS256", bits=1024).member, "alg"),
    "16385 bits": KEYS["RS256"].member | {"n": b64(b"\x01" + b"\xff" * 2048)},
    "no n": _without(KEYS["RS256"].member, "n"),
    "no e": _without(KEYS["RS256"].member, "e"),
    "exponent of one": KEYS["RS256"].member | {"e": "AQ"},
    "exponent of zero": KEYS["RS256"].member | {"e": "AA"},
    "even exponent": KEYS["RS256"].member | {"e": "AQAC"},
    "exponent of 65 bits": KEYS["PS256"].member | {"e": b64(b"\x01" * 9)},
}


@pytest.mark.parametrize("member", [pytest.param(m, id=name) for name, m in UNUSABLE_KEYS.items()])
def test_an_unusable_key_is_ignored(
    server: AuthServer, verifier: TokenVerifier, member: object
) -> None:
    good = SigningKey("ES256", "good")
    server.members = [member, good.member]

    assert run(verifier.verify(good.token(server.claims()))).id == "ann"
    with pytest.raises(InvalidTokenError):
        run(verifier.verify(ED.token(server.claims())))


@pytest.mark.parametrize(
    "extra",
    [
        {"use": "sig"},
        {"use": None, "key_ops": None},
        {"key_ops": ["verify"]},
        {"key_ops": ["sign", "verify"]},
        {"d": "c2VjcmV0"},
        {"d": 1, "n": None, "oth": []},
        {"x5c": ["not a certificate"], "x5u": "http://evil.example", "x5t": 1},
        {"createdAt": "2025-01-01", "expiresAt": None, "z": [1e300]},
    ],
)
def test_unknown_members_of_a_key_are_ignored(
    server: AuthServer, verifier: TokenVerifier, extra: dict[str, Any]
) -> None:
    server.members = [ED.member | extra]

    assert run(verifier.verify(ED.token(server.claims()))).id == "ann"


DOCUMENT = json.dumps({"keys": [ED.member]})
SHORT_TIMEOUT = {"FETCH_TIMEOUT_SECONDS": 1.0}

# How the server misbehaves, and constants of jwks that make its test fast.
MISBEHAVIORS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "error": ({"status": 500}, {}),
    "not found": ({"status": 404}, {}),
    "redirect": ({"status": 302, "headers": {"Location": "/canary"}}, {}),
    "compressed": (
        {"body": gzip.compress(DOCUMENT.encode()), "headers": {"Content-Encoding": "gzip"}},
        {},
    ),
    "large": ({"body": DOCUMENT.encode() + b" " * jwks.KEY_SET_MAX_BYTES}, {}),
    "deep": ({"body": b"[" * 50_000}, {}),
    "slow": ({"delay_seconds": 2}, SHORT_TIMEOUT),
    "dripping": ({"pause_seconds": 0.05}, SHORT_TIMEOUT),
    "cut off": ({"headers": {"Content-Length": str(len(DOCUMENT) + 1)}}, {}),
    **{
        encoding: ({"body": DOCUMENT.encode(encoding)}, {})
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le")
    },
    **{
        body: ({"body": body.encode()}, {})
        for body in (
            *("", "<html>", "null", "[]", "{}", '{"keys": {}}', '{"keys": null}', "\ufeff{"),
            *('{"keys": [], "x": NaN}', '{"keys": [{"x": -Infinity}]}', '{"keys": [Infinity]}'),
        )
    },
}


def _misbehave(server: AuthServer, misbehavior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attributes, constants = MISBEHAVIORS[misbehavior]
    for name, value in attributes.items():
        setattr(server, name, value)
    for name, seconds in constants.items():
        monkeypatch.setattr(jwks, name, seconds)


@pytest.mark.parametrize("misbehavior", MISBEHAVIORS)
def test_without_cached_keys_a_misbehaving_server_is_unavailable(
    server: AuthServer, verifier: TokenVerifier, misbehavior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _misbehave(server, misbehavior, monkeypatch)

    with pytest.raises(AuthServerUnavailableError):
        run(verifier.verify(ED.token(server.claims())))
    assert set(server.requested) == {"/api/auth/jwks"}


@pytest.mark.parametrize("misbehavior", MISBEHAVIORS)
def test_cached_keys_keep_working_when_the_server_misbehaves(
    server: AuthServer,
    verifier: TokenVerifier,
    misbehavior: str,
    make_stale: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        await verifier.verify(ED.token(server.claims()))
        _misbehave(server, misbehavior, monkeypatch)
        make_stale()
        for number in range(3):
            await verifier.verify(ED.token(server.claims(jti=number)))
            await _wait_for_fetch(verifier, server, times=number + 2)
        with pytest.raises(InvalidTokenError, match="unknown key"):
            await verifier.verify(SigningKey("EdDSA", "k2").token(server.claims()))

    _run(scenario, verifier)


def _log(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.name == "jwks"]


NOT_A_KEY_SET = "its response is not a key set"


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        *((status, None, f"it responded {status}") for status in (204, 301, 302, 307, 308)),
        *((status, None, f"it responded {status}") for status in (400, 401, 403, 404, 405, 410)),
        (200, b"<!doctype html>", NOT_A_KEY_SET),
        (200, b'{"status": "ok"}', NOT_A_KEY_SET),
        (200, b'{"keys": {"k1": {}}}', NOT_A_KEY_SET),
        (200, b" " * (jwks.KEY_SET_MAX_BYTES + 1), "its response is larger than 65536 bytes"),
    ],
)
def test_a_wrong_url_is_logged_once_with_the_settings_to_check(
    server: AuthServer,
    verifier: TokenVerifier,
    status: int,
    body: bytes | None,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(jwks, "RETRY_AFTER_SECONDS", 0)
    server.status, server.body = status, body
    wrong = (
        f"No key set from {server.url}/api/auth/jwks: {problem}. Check BETTER_AUTH_URL (add Better "
        "Auth's basePath if it is not /api/auth), or set JWKS_URL to the URL of the key set"
    )

    async def scenario() -> None:
        for number in range(3):
            with pytest.raises(AuthServerUnavailableError) as refused:
                await verifier.verify(ED.token(server.claims(jti=number)))
            assert str(refused.value) == wrong
        server.status, server.body = 200, None
        await verifier.verify(ED.token(server.claims()))

    _run(scenario, verifier)
    assert server.fetches == 4
    assert _log(caplog) == [wrong, f"Read the whole key set from {server.url}/api/auth/jwks"]


def test_each_kind_of_outage_is_logged_once(
    server: AuthServer,
    verifier: TokenVerifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(jwks, "RETRY_AFTER_SECONDS", 0)
    statuses = [500, 503, 503, 407, 408, 425, 429]

    async def scenario() -> None:
        for server.status in statuses:
            with pytest.raises(AuthServerUnavailableError):
                await verifier.verify(ED.token(server.claims()))

    _run(scenario, verifier)
    assert _log(caplog) == [
        f"No key set from {server.url}/api/auth/jwks: it responded {status}"
        for status in dict.fromkeys(statuses)
    ]


def test_an_auth_server_that_does_not_respond_is_logged_as_an_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jwks, "RETRY_AFTER_SECONDS", 0)
    with auth_server() as server:
        url, token = server.url, ED.token(server.claims())
    settings = settings_for(make_url("sqlite:///unused.db"), better_auth_url=url)
    verifier = TokenVerifier(settings)

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(AuthServerUnavailableError):
                await verifier.verify(token)

    _run(scenario, verifier)
    assert _log(caplog) == [f"No key set from {url}/api/auth/jwks: All connection attempts failed"]


def test_missing_certificates_are_logged_as_an_outage(
    server: AuthServer,
    verifier: TokenVerifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")

    async def scenario() -> None:
        with pytest.raises(AuthServerUnavailableError):
            await verifier.verify(ED.token(server.claims()))

    _run(scenario, verifier)
    assert "No such file or directory" in "".join(_log(caplog))


def test_ignored_keys_are_logged_once_with_the_reasons(
    server: AuthServer,
    verifier: TokenVerifier,
    make_stale: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    unusable = [1, _without(ED.member, "x"), ED.member | {"use": "enc"}, ED.member | {"alg": "XY"}]

    async def scenario() -> None:
        server.members = [ED.member, *unusable]
        await verifier.verify(ED.token(server.claims()))
        for times in (2, 3):
            make_stale()
            await verifier.verify(ED.token(server.claims()))
            await _wait_for_fetch(verifier, server, times)

    _run(scenario, verifier)
    (line,) = _log(caplog)
    assert line == (
        f"Ignored keys in the set of {server.url}/api/auth/jwks: number 2: not an object; "
        "number 3: KeyError; number 4: not for verifying signatures; "
        "number 5: its kty, crv and alg match no accepted algorithm"
    )


def test_many_unusable_keys_are_logged_in_one_short_line(
    server: AuthServer, verifier: TokenVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    server.body = b'{"keys": [%s]}' % b",".join([json.dumps(ED.member).encode(), *[b"1"] * 30_000])

    assert run(verifier.verify(ED.token(server.claims()))).id == "ann"
    assert [len(line) < 1000 for line in _log(caplog)] == [True]


def test_a_byte_order_mark_before_the_key_set_is_ignored(
    server: AuthServer, verifier: TokenVerifier
) -> None:
    server.body = json.dumps({"keys": [ED.member]}).encode("utf-8-sig")

    assert run(verifier.verify(ED.token(server.claims()))).id == "ann"


def test_an_empty_key_set_is_valid(server: AuthServer, verifier: TokenVerifier) -> None:
    server.members = []

    with pytest.raises(InvalidTokenError, match="unknown key"):
        run(verifier.verify(ED.token(server.claims())))


def test_an_auth_server_that_becomes_available_is_used(
    server: AuthServer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        server.status = 503
        token = ED.token(server.claims())
        for _ in range(3):
            with pytest.raises(AuthServerUnavailableError):
                await verifier.verify(token)
        assert server.fetches == 1

        server.status = 200
        monkeypatch.setattr(jwks, "RETRY_AFTER_SECONDS", 0)
        assert (await verifier.verify(token)).id == "ann"

    _run(scenario, verifier)


def test_concurrent_callers_share_one_fetch(server: AuthServer, verifier: TokenVerifier) -> None:
    server.delay_seconds = 0.2

    async def scenario() -> None:
        tokens = [ED.token(server.claims(jti=number)) for number in range(50)]
        users = await asyncio.gather(*map(verifier.verify, tokens))
        assert [user.id for user in users] == ["ann"] * 50

    _run(scenario, verifier)
    assert server.fetches == 1


def test_a_canceled_caller_does_not_stop_the_fetch(
    server: AuthServer, verifier: TokenVerifier
) -> None:
    server.delay_seconds = 0.2

    async def scenario() -> None:
        first = asyncio.create_task(verifier.verify(ED.token(server.claims(jti=1))))
        await asyncio.sleep(0)
        second = asyncio.create_task(verifier.verify(ED.token(server.claims(jti=2))))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).id == "ann"

    _run(scenario, verifier)
    assert server.fetches == 1


def test_a_thousand_unknown_kids_cause_two_fetches_at_most(
    server: AuthServer, verifier: TokenVerifier
) -> None:
    server.delay_seconds = 0.05
    strangers = [SigningKey("EdDSA", f"stranger-{number}") for number in range(10)]

    async def scenario() -> None:
        tokens = [
            strangers[number % 10].token(server.claims(), kid=f"made-up-{number}")
            for number in range(1000)
        ]
        results = await asyncio.gather(*map(verifier.verify, tokens), return_exceptions=True)
        assert {type(result) for result in results} == {InvalidTokenError}
        for number in range(20):
            with pytest.raises(InvalidTokenError):
                await verifier.verify(ED.token(server.claims(), kid=f"later-{number}"))

    _run(scenario, verifier)
    assert server.fetches <= 2


def test_a_cached_key_does_not_wait_for_a_fetch(
    server: AuthServer, verifier: TokenVerifier
) -> None:
    async def scenario() -> None:
        await verifier.verify(ED.token(server.claims()))
        server.delay_seconds = 0.5
        unknown = asyncio.create_task(verifier.verify(ED.token(server.claims(), kid="k2")))
        await asyncio.sleep(0.05)
        for number in range(100):
            await verifier.verify(ED.token(server.claims(jti=number)))
        assert not unknown.done()
        with pytest.raises(InvalidTokenError):
            await unknown

    _run(scenario, verifier)
    assert server.fetches == 2


def test_after_a_rotation_the_first_token_of_the_new_key_is_accepted(
    server: AuthServer, verifier: TokenVerifier
) -> None:
    rotated = SigningKey("EdDSA", "k2")

    async def scenario() -> None:
        await verifier.verify(ED.token(server.claims()))
        server.members = [rotated.member, ED.member]
        tokens = [rotated.token(server.claims(jti=number)) for number in range(20)]
        users = await asyncio.gather(*map(verifier.verify, tokens))
        assert [user.id for user in users] == ["ann"] * 20
        await verifier.verify(ED.token(server.claims(jti="the old one")))

    _run(scenario, verifier)
    assert server.fetches == 2


def test_a_rotation_during_a_fetch_is_found_by_the_next(
    server: AuthServer, verifier: TokenVerifier, make_stale: Callable[[], None]
) -> None:
    rotated = SigningKey("EdDSA", "k2")

    async def scenario() -> None:
        await verifier.verify(ED.token(server.claims()))
        make_stale()
        await verifier.verify(ED.token(server.claims(jti=1)))
        await _wait_for_fetch(verifier, server, times=1)
        server.body = json.dumps({"keys": [ED.member]}).encode()
        server.delay_seconds = 0.2
        await verifier.verify(ED.token(server.claims(jti=2)))
        waiting = asyncio.create_task(verifier.verify(rotated.token(server.claims())))
        await asyncio.sleep(0.3)
        server.body = json.dumps({"keys": [ED.member, rotated.member]}).encode()
        assert (await waiting).id == "ann"

    _run(scenario, verifier)


def test_a_token_is_verified_only_once(
    server: AuthServer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = []
    verify = jws.verify

    def note(*arguments: Any) -> object:  # noqa: ANN401  # passed on unchanged
        verified.append(arguments)
        return verify(*arguments)

    monkeypatch.setattr("jose.jws.verify", note)

    async def scenario() -> None:
        token = ED.token(server.claims(exp=time.time() + 1000))
        for _ in range(5):
            await verifier.verify(token)
        assert len(verified) == 1

        monkeypatch.setattr("auth.time.time", lambda: time.monotonic() + 10**10)
        with pytest.raises(InvalidTokenError, match="expired"):
            await verifier.verify(token)

    _run(scenario, verifier)


def test_the_cache_of_accepted_tokens_is_bounded(
    server: AuthServer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "ACCEPTED_TOKENS_MAX", 3)

    async def scenario() -> None:
        for number in range(10):
            await verifier.verify(ED.token(server.claims(jti=number)))

    _run(scenario, verifier)
    assert len(verifier._accepted) == 3  # noqa: SLF001


@pytest.mark.parametrize(
    ("kid", "refusal"), [("k2", "unknown key"), ("k1", "signature is not valid")]
)
def test_an_accepted_token_is_dropped_when_its_key_leaves_the_set(
    server: AuthServer,
    verifier: TokenVerifier,
    make_stale: Callable[[], None],
    kid: str,
    refusal: str,
) -> None:
    async def scenario() -> None:
        token = ED.token(server.claims())
        await verifier.verify(token)
        server.members = [SigningKey("EdDSA", kid).member]
        make_stale()
        await verifier.verify(token)
        await _wait_for_fetch(verifier, server, times=2)

        with pytest.raises(InvalidTokenError, match=refusal):
            await verifier.verify(token)

    _run(scenario, verifier)
