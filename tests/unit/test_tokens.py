"""Which tokens are accepted, and that nothing but InvalidTokenError comes of the others."""

import asyncio
import base64
import hmac
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from auth import InvalidTokenError, TokenVerifier
from main import sign
from models import User
from tests.actors import SECRET, settings_for
from tests.auth_server import LATER, b64, jws

SETTINGS = settings_for(make_url("sqlite:///unused.db"))
CLAIMS: dict[str, Any] = {"sub": "ann", "exp": LATER}


def _verify(token: str) -> User:
    return asyncio.run(TokenVerifier(SETTINGS).verify(token))


def _token(
    claims: bytes | dict[str, Any],
    header: bytes | dict[str, Any] | None = None,
    hash_: str = "sha256",
) -> str:
    """Sign anything at all with the right secret."""
    secret = SECRET.get_secret_value().encode()
    header = {"alg": "HS256", "typ": "JWT"} if header is None else header
    return jws(header, claims, lambda signed: hmac.digest(secret, signed, hash_))


GOOD = _token(CLAIMS)


def test_a_token_of_the_command_line_is_accepted() -> None:
    assert _verify(sign(SECRET, "ann", minutes=1)) == User(id="ann", email=None, name=None)


@pytest.mark.parametrize(
    ("claims", "user"),
    [
        ({"email": "a@b.example", "name": "Ann"}, ("ann", "a@b.example", "Ann")),
        ({"email": 1, "name": ["Ann"]}, ("ann", None, None)),
        ({"email": "\0", "name": "\ud800"}, ("ann", None, None)),
        ({"sub": "x" * 255}, ("x" * 255, None, None)),
        ({"sub": "1"}, ("1", None, None)),
        ({"sub": "Äpfel 🍎"}, ("Äpfel 🍎", None, None)),
        ({"exp": LATER + 0.5, "iat": 0, "nbf": 0.5}, ("ann", None, None)),
        ({"iat": LATER}, ("ann", None, None)),
        ({"id": "bob", "user_id": "bob", "aud": "x", "iss": ["y"]}, ("ann", None, None)),
    ],
)
def test_a_good_token_names_its_user(claims: dict[str, Any], user: tuple[str, ...]) -> None:
    id_, email, name = user

    assert _verify(_token(CLAIMS | claims)) == User(id=id_, email=email, name=name)


@pytest.mark.parametrize("header", [{"alg": "HS256"}, {"alg": "HS256", "kid": "x", "x": [{}]}])
def test_other_headers_are_ignored(header: dict[str, Any]) -> None:
    assert _verify(_token(CLAIMS, header)).id == "ann"


SHAPES = {
    "empty": "",
    "one segment": "x",
    "session token": "x.y",
    "four segments": GOOD + ".x",
    "five segments, as a JWE has": "a.b.c.d.e",
    "empty segments": "..",
    "no signature": GOOD.rpartition(".")[0] + ".",
    "padding": GOOD + "=",
    "white space": GOOD.replace(".", ". "),
    "line feed": GOOD + "\n",
    "foreign character": GOOD[:-1] + "!",
    "not ASCII": GOOD[:-1] + "é",
    "base64, not base64url": _token(CLAIMS | {"x": "???>>>"}).replace("_", "/").replace("-", "+"),
    "too long": _token(CLAIMS | {"x": "x" * 8192}),
    "header is no JSON": _token(CLAIMS, b"{"),
    "header is not UTF-8": _token(CLAIMS, b'{"alg":"HS256","x":"\xff"}'),
    "header is UTF-16": _token(CLAIMS, '{"alg":"HS256"}'.encode("utf-16")),
    "header is a list": _token(CLAIMS, b"[]"),
    "header is null": _token(CLAIMS, b"null"),
    "header is deep": _token(CLAIMS, b"[" * 1500),
    "header has a name twice": _token(CLAIMS, b'{"alg":"none","alg":"HS256"}'),
    "payload is no JSON": _token(b"sub=ann"),
    "payload is a string": _token(b'"ann"'),
    "payload is deep": _token(b'{"sub":' * 800),
    "payload has a name twice": _token(b'{"sub":"bob","sub":"ann","exp":%d}' % LATER),
    "payload has a long number": _token(b'{"sub":"ann","exp":%s}' % (b"9" * 4999)),
}
HEADERS = {
    "no algorithm": _token(CLAIMS, {}),
    "none": _token(CLAIMS, {"alg": "none"}),
    "None": _token(CLAIMS, {"alg": "None"}),
    "null": _token(CLAIMS, {"alg": None}),
    "a list": _token(CLAIMS, {"alg": ["HS256"]}),
    "lower case": _token(CLAIMS, {"alg": "hs256"}),
    "HS384": _token(CLAIMS, {"alg": "HS384"}, "sha384"),
    "HS512": _token(CLAIMS, {"alg": "HS512"}, "sha512"),
    "RS256": _token(CLAIMS, {"alg": "RS256"}),
    "EdDSA": _token(CLAIMS, {"alg": "EdDSA"}),
    "critical": _token(CLAIMS, {"alg": "HS256", "crit": ["x"]}),
    "critical, empty": _token(CLAIMS, {"alg": "HS256", "crit": []}),
    "session cookie": _token(CLAIMS, {"alg": "HS256", "typ": "better-auth.session-cache+jwt"}),
    "session cookie, in capitals": _token(
        CLAIMS, {"alg": "HS256", "typ": "Better-Auth.Session-Cache+JWT"}
    ),
}
NO_TIMES: list[Any] = [
    None,
    "",
    str(LATER),
    [LATER],
    {},
    True,
    float("nan"),
    float("inf"),
    float("-inf"),
    10**400,
]
TIMES = {
    f"{name} is {value!r:.20}": _token(CLAIMS | {name: value})
    for name in ("exp", "nbf", "iat")
    for value in NO_TIMES
}
CLAIMED = {
    "no expiry": _token({"sub": "ann"}),
    "expired": _token(CLAIMS | {"exp": 1_000_000_000}),
    "expires now": _token(CLAIMS | {"exp": int(time.time())}),
    "expired long ago": _token(CLAIMS | {"exp": -(10**30)}),
    "not yet valid": _token(CLAIMS | {"nbf": LATER}),
    "no sub": _token({"exp": LATER, "id": "ann", "email": "a@b.example", "user_id": "ann"}),
    **{
        f"sub is {value!r:.20}": _token(CLAIMS | {"sub": value})
        for value in (None, "", 0, 1, True, ["ann"], {"id": "ann"}, "x" * 256, "a\0b", "\ud800")
    },
}
SIGNATURES = {
    "another secret": sign(type(SECRET)("another secret of more than 32 bytes"), "ann", 5),
    "truncated": GOOD[:-2],
    "of another token": f"{GOOD.rpartition('.')[0]}.{_token({}).rpartition('.')[2]}",
    **{
        f"bit {bit} of segment {number} flipped": ".".join(
            b64(bytes([raw[0] ^ 1 << bit]) + raw[1:]) if index == number else segment
            for index, segment in enumerate(GOOD.split("."))
            for raw in [base64.urlsafe_b64decode(segment + "==")]
        )
        for number in range(3)
        for bit in range(8)
    },
    **{
        f"ends in {last}": GOOD[:-1] + last
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if last != GOOD[-1]
    },
}


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(token, id=f"{kind}: {name}")
        for kind, tokens in [
            ("shape", SHAPES),
            ("header", HEADERS),
            ("time", TIMES),
            ("claim", CLAIMED),
            ("signature", SIGNATURES),
        ]
        for name, token in tokens.items()
    ],
)
def test_a_bad_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidTokenError):
        _verify(token)


@given(
    st.text(max_size=40)
    | st.binary(max_size=40).map(b64)
    | st.lists(st.binary(max_size=30).map(b64), min_size=3, max_size=3).map(".".join)
)
def test_nothing_but_a_refusal_comes_of_garbage(token: str) -> None:
    with pytest.raises(InvalidTokenError):
        _verify(token)


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_names = st.sampled_from(["sub", "exp", "nbf", "iat", "alg", "crit", "typ", "email", "name"])


@given(st.dictionaries(_names, _json), st.dictionaries(_names, _json))
def test_a_signed_token_of_any_content_is_accepted_or_refused(
    claims: dict[str, Any], header: dict[str, Any]
) -> None:
    token = _token(CLAIMS | claims, {"alg": "HS256"} | header)
    try:
        user = _verify(token)
    except InvalidTokenError:
        return
    assert user.id == (CLAIMS | claims)["sub"]
