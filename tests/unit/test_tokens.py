"""Valid tokens are accepted, and all others raise InvalidTokenError."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url

from auth import InvalidTokenError, TokenVerifier
from main import sign
from models import User
from tests.actors import SECRET, settings_for
from tests.auth_server import LATER, b64
from tests.hostile_tokens import CLAIMS, HS256, hs256

SETTINGS = settings_for(make_url("sqlite:///unused.db"))


def _verify(token: str) -> User:
    return asyncio.run(TokenVerifier(SETTINGS).verify(token))


def test_a_token_from_the_command_line_is_accepted() -> None:
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
        ({"sub": " ann\u200b"}, (" ann\u200b", None, None)),
        ({"sub": "\ue000"}, ("\ue000", None, None)),
        ({"id": "bob", "user_id": "bob", "aud": "x", "iss": ["y"]}, ("ann", None, None)),
    ],
)
def test_a_valid_token_returns_its_user(claims: dict[str, Any], user: tuple[str, ...]) -> None:
    id_, email, name = user

    assert _verify(hs256(CLAIMS | claims)) == User(id=id_, email=email, name=name)


def test_numbers_beyond_the_range_of_a_float_are_accepted() -> None:
    assert _verify(hs256(b'{"sub":"ann","exp":%d,"x":[1e999,-1e999]}' % LATER)).id == "ann"


def test_nbf_may_be_five_seconds_ahead_but_exp_has_no_leeway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verifier = TokenVerifier(SETTINGS)
    token = hs256(CLAIMS | {"nbf": 2_000_000_006, "exp": 2_000_000_010})

    def at(now: float) -> str:
        monkeypatch.setattr("auth.time.time", lambda: now)
        try:
            return asyncio.run(verifier.verify(token)).id
        except InvalidTokenError as error:
            return str(error)

    assert [at(2_000_000_000 + seconds) for seconds in (0, 0.9, 1, 1, 9.9, 10)] == [
        "Token is not valid yet",
        "Token is not valid yet",
        "ann",
        "ann",
        "ann",
        "Token has expired",
    ]


@pytest.mark.parametrize("header", [{"alg": "HS256"}, {"alg": "HS256", "kid": "x", "x": [{}]}])
def test_other_header_parameters_are_ignored(header: dict[str, Any]) -> None:
    assert _verify(hs256(CLAIMS, header)).id == "ann"


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in HS256.items()])
def test_an_invalid_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidTokenError):
        _verify(token)


@settings(max_examples=50, deadline=None)
@given(
    st.text(max_size=40)
    | st.text(st.characters(categories=["Cs", "Nd"]), max_size=40)
    | st.binary(max_size=40).map(b64)
    | st.lists(st.binary(max_size=30).map(b64), min_size=3, max_size=3).map(".".join)
)
def test_garbage_raises_only_invalid_token_error(token: str) -> None:
    with pytest.raises(InvalidTokenError):
        _verify(token)


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_names = st.sampled_from(["sub", "exp", "nbf", "iat", "alg", "crit", "typ", "email", "name"])


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(_names, _json), st.dictionaries(_names, _json))
def test_a_signed_token_with_any_content_is_accepted_or_refused(
    claims: dict[str, Any], header: dict[str, Any]
) -> None:
    token = hs256(CLAIMS | claims, {"alg": "HS256"} | header)
    try:
        user = _verify(token)
    except InvalidTokenError:
        return
    assert user.id == (CLAIMS | claims)["sub"]
