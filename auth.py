"""The Bearer token of a request -> the user whose it is; everything else is 401.

python-jose checks the signature. It leaves much of RFC 7515 and RFC 7519 open, and its exceptions
do not share a base, so what surrounds the signature is checked here, each rule with its source.
"""

import json
import math
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Path, Request, Response, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from jose import jws
from jose.backends.base import Key
from starlette.types import Message, Receive
from typing_extensions import override

from errors import documented
from models import USER_ID_MAX_CHARS, User, is_storable

TOKEN_MAX_CHARS = 8 * 1024
BODY_MAX_BYTES = 64 * 1024


UNAUTHORIZED = documented(401, "No token, or not one to act on", "Token has expired")
FOREIGN_PATH = documented(403, "Another user's path", "The path names another user than the token")
BAD_BODY = documented(
    400, "The body is not JSON in UTF-8", "There was an error parsing the body"
) | documented(413, "The body is too large", f"The body is larger than {BODY_MAX_BYTES} bytes")


class InvalidTokenError(Exception):
    """The token is not one to act on; the message is for its bearer (RFC 6750, 3.1)."""


def verify(token: str, secret: Key) -> User:
    """Give the user whom the token names.

    Raises:
        InvalidTokenError: for whatever is wrong with it, and nothing else.

    """
    # Bounded before anything is parsed: the parsers below cost what they are given.
    if len(token) > TOKEN_MAX_CHARS:
        raise InvalidTokenError(f"Token is longer than {TOKEN_MAX_CHARS} characters")
    segments = token.split(".")
    if len(segments) == 2:  # noqa: PLR2004  # <session id>.<signature>
        raise InvalidTokenError(
            "This is Better Auth's session token; send the JWT that /api/auth/token gives"
        )
    if len(segments) != 3:  # noqa: PLR2004  # RFC 7515, 3.1: header, payload, signature
        raise InvalidTokenError("Token is not a JWT")
    header = _json_object(_decode(segments[0]))
    claims = _json_object(_decode(segments[1]))
    _decode(segments[2])
    _check_signature(token, header, secret)
    _check_times(claims)
    return _user(claims)


def _decode(segment: str) -> bytes:
    """Read base64url as RFC 7515, 2 has it: no padding, no foreign characters, no stray bits."""
    try:
        decoded = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError as error:
        raise _malformed() from error
    # Python's decoder skips what it does not know; only the one canonical spelling encodes back.
    if urlsafe_b64encode(decoded).rstrip(b"=") != segment.encode():
        raise _malformed()
    return decoded


def _json_object(encoded: bytes) -> dict[str, Any]:
    try:
        value = json.loads(encoded.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _malformed() from error
    if not isinstance(value, dict):
        raise _malformed()
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name given twice (RFC 7515, 4; RFC 7519, 4): two parsers may differ on it."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _malformed()
    return members


def _malformed() -> InvalidTokenError:
    return InvalidTokenError("Token is malformed")


def _check_signature(token: str, header: Mapping[str, Any], secret: Key) -> None:
    # RFC 7515, 4.1.11: an extension that must be understood and is not. None is understood here.
    if "crit" in header:
        raise InvalidTokenError("Token has a critical header")
    # RFC 8725, 3.1: the algorithm is the key's, never the token's to choose.
    if header.get("alg") != "HS256":
        raise InvalidTokenError("Token is signed with an algorithm that is not accepted")
    try:
        # A prebuilt Key: python-jose would parse a secret that is JSON, and guess at others.
        jws.verify(token, secret, ["HS256"])
    except Exception as error:  # JWKError, TypeError and others are no JOSEError
        raise InvalidTokenError("Token signature is not valid") from error


def _check_times(claims: Mapping[str, Any]) -> None:
    """Check `exp` (which is required), `nbf` and `iat` (RFC 7519, 4.1.4 to 4.1.6)."""
    if "exp" not in claims:
        raise InvalidTokenError("Token has no expiry")
    for name in ("exp", "nbf", "iat"):
        if name in claims and not _is_finite_number(claims[name]):
            raise InvalidTokenError(f"Token has an {name} that is not a number")
    now = time.time()
    if claims["exp"] <= now:  # "on or after which the JWT MUST NOT be accepted"
        raise InvalidTokenError("Token has expired")
    if claims.get("nbf", now) > now:
        raise InvalidTokenError("Token is not valid yet")


def _is_finite_number(value: object) -> bool:
    # RFC 7519, 2, NumericDate. A bool is an int in Python, and json reads NaN, Infinity and 1e999.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond a float's range
        return False


def _user(claims: Mapping[str, Any]) -> User:
    # `sub` alone: Better Auth signs e-mail-verification and cookie-cache tokens with the same
    # secret, and those name the user elsewhere, without a `sub`.
    subject = claims.get("sub")
    if not (isinstance(subject, str) and 0 < len(subject) <= USER_ID_MAX_CHARS):
        raise InvalidTokenError(f"Token has no sub of 1 to {USER_ID_MAX_CHARS} characters")
    if not is_storable(subject):
        raise InvalidTokenError("Token has a sub that cannot be stored")
    return User(id=subject, email=_text(claims, "email"), name=_text(claims, "name"))


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) and is_storable(value) else None


def authenticate(request: Request) -> User:
    """Give the user whose token the request carries, or raise the 401 of RFC 6750, 3."""
    credentials = request.headers.getlist("Authorization")
    scheme, _, token = credentials[0].partition(" ") if len(credentials) == 1 else ("", "", "")
    if len(credentials) > 1:
        raise _unauthorized("Send one Authorization header")
    if scheme.lower() != "bearer":
        # No error code: the request lacks authentication, it does not have a wrong one.
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED,
            "Send a token: Authorization: Bearer <JWT>",
            {"WWW-Authenticate": "Bearer"},
        )
    try:
        return verify(token.strip(" "), request.app.state.secret)
    except InvalidTokenError as error:
        raise _unauthorized(str(error)) from error


def _unauthorized(description: str) -> HTTPException:
    challenge = f'Bearer error="invalid_token", error_description="{description}"'
    return HTTPException(HTTPStatus.UNAUTHORIZED, description, {"WWW-Authenticate": challenge})


class GuardedRoute(APIRoute):
    """A route that checks the token before the body is read, and then reads a bounded body.

    FastAPI itself reads and parses the whole body before any dependency runs.
    """

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_guarded(request: Request) -> Response:
            request.state.user = authenticate(request)
            return await handle(Request(request.scope, _bounded(request)))

        return handle_guarded


def _bounded(request: Request) -> Receive:
    """Receive the body up to BODY_MAX_BYTES, whether or not its length was announced."""
    received_bytes = 0

    async def receive() -> Message:
        nonlocal received_bytes
        if _announced_bytes(request) > BODY_MAX_BYTES:
            raise _too_large()
        message = await request.receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > BODY_MAX_BYTES:
            raise _too_large()
        return message

    return receive


def _announced_bytes(request: Request) -> int:
    try:
        return int(request.headers.get("Content-Length", "0"))
    except ValueError:
        return 0  # what arrives is counted all the same


def _too_large() -> HTTPException:
    return HTTPException(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {BODY_MAX_BYTES} bytes"
    )


class _BearerScheme(SecurityBase):
    """The scheme as /docs shows it; called, it gives the user whom the route has found."""

    model = HTTPBearer(bearerFormat="JWT", description="The JWT of Better Auth.")
    scheme_name = "bearer"

    async def __call__(self, request: Request) -> User:
        user: User = request.state.user
        return user


CurrentUser = Annotated[User, Security(_BearerScheme())]


async def require_own_path(
    user_id: Annotated[str, Path(description="Your own user id.", examples=["ann"])],
    user: CurrentUser,
) -> None:
    """Refuse a path that names another user."""
    if user_id != user.id:
        raise HTTPException(HTTPStatus.FORBIDDEN, "The path names another user than the token")


OwnPath = Depends(require_own_path)
