"""Verify the Bearer token of a request and return its user. Without a valid token, raise a 401.

python-jose checks only the signature. It does not enforce all of RFC 7515 and RFC 7519, and its
exceptions share no base class. This module checks the rest, and cites the source of each rule.
"""

import json
import math
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, HTTPException, Path, Request, Security
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from jose import jws
from jose.backends import HMACKey
from jose.backends.base import Key

from errors import documented
from jwks import KEY_TYPES, KeySet, VerificationKey, refuse_constant
from models import USER_ID_MAX_CHARS, User, is_blank, is_storable
from settings import Settings

TOKEN_MAX_CHARS = 8 * 1024
ACCEPTED_TOKENS_MAX = 10_000
CLAIM_SHOWN_CHARS = 100
# How far the auth server's clock may be ahead of ours (RFC 7519, 4.1.5).
CLOCK_SKEW_SECONDS = 5

ALGORITHM_NOT_ACCEPTED = "Token is signed with an algorithm that is not accepted"

UNAUTHORIZED = documented(401, "The token is missing or invalid", "Token has expired")
NOT_YOUR_PATH = "The user id in the path is not the token's"
FOREIGN_PATH = documented(403, NOT_YOUR_PATH, NOT_YOUR_PATH)


class InvalidTokenError(Exception):
    """The token is refused. The message is for the client (RFC 6750, 3.1).

    `hint` is for the log and may say more: what was expected, and which setting to check.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint or message


class _Accepted(NamedTuple):
    """A verified token. It is valid until it expires or its key leaves the key set."""

    user: User
    expires_at: float
    key: VerificationKey | None  # None if the secret verified the token
    audience: object  # the claim `aud`, which says where a token signed by a key set is valid


class TokenVerifier:
    """Verifies tokens with the secret (HS256), with the auth server's key set, or with either."""

    def __init__(self, settings: Settings) -> None:
        self._issuers, self._audiences = settings.issuers, settings.audiences
        # OAuth clients have tokens of their user that are meant for others, such as ID tokens. If
        # the secret signs them too, only `aud` tells them apart.
        self._checks_every_audience = settings.mcp and bool(settings.audiences)
        self._secret: Key | None = None
        self._key_set: KeySet | None = None
        if settings.better_auth_secret is not None:
            self._secret = HMACKey(settings.better_auth_secret.get_secret_value(), "HS256")
        if settings.key_set_url is not None:
            self._key_set = KeySet(settings.key_set_url)
        self._accepted: OrderedDict[bytes, _Accepted] = OrderedDict()

    async def verify(self, token: str, resource: str | None = None) -> User:
        """Return the user that the token names.

        `resource` is one more audience that is accepted (RFC 8707): the URL of what is called.

        Raises:
            InvalidTokenError: the token is not valid, for whatever reason.
            AuthServerUnavailableError: no key set has been fetched yet.

        """
        # Check the length first: the cost of everything below grows with it.
        if len(token) > TOKEN_MAX_CHARS:
            raise InvalidTokenError(f"Token is longer than {TOKEN_MAX_CHARS} characters")
        digest = sha256(token.encode(errors="surrogatepass")).digest()
        accepted = self._accepted.get(digest)
        if accepted is None or not self._is_still_valid(accepted):
            accepted = await self._verify(token)
            self._accepted[digest] = accepted
            if len(self._accepted) > ACCEPTED_TOKENS_MAX:
                self._accepted.popitem(last=False)
        has_audience = accepted.audience is not None and self._checks_every_audience
        if accepted.key is not None or has_audience:
            self._check_audience(accepted.audience, resource)
        return accepted.user

    def _is_still_valid(self, accepted: _Accepted) -> bool:
        if accepted.expires_at <= time.time():
            return False
        key = accepted.key
        if key is None or self._key_set is None:
            return True
        return self._key_set.known(key.kid).get(key.algorithm) is key

    async def _verify(self, token: str) -> _Accepted:
        header, claims = _read(token)
        algorithm = header.get("alg")
        if algorithm == "HS256":
            key = None
            _check_signature(token, self._secret_key(), "HS256")
        elif isinstance(algorithm, str) and algorithm in KEY_TYPES:
            key = await self._key(header, algorithm)
            _check_signature(token, key.key, algorithm)
            self._check_issuer(claims)
        else:
            raise InvalidTokenError(ALGORITHM_NOT_ACCEPTED)
        _check_times(claims)
        return _Accepted(_user(claims), claims["exp"], key, claims.get("aud"))

    def _secret_key(self) -> Key:
        if self._secret is None:
            raise InvalidTokenError(
                ALGORITHM_NOT_ACCEPTED,
                "Token is signed with HS256, but BETTER_AUTH_SECRET is not set",
            )
        return self._secret

    async def _key(self, header: Mapping[str, Any], algorithm: str) -> VerificationKey:
        if self._key_set is None:
            raise InvalidTokenError(
                ALGORITHM_NOT_ACCEPTED,
                f"Token is signed with {algorithm}, but BETTER_AUTH_URL is not set",
            )
        kid = header.get("kid")
        if not isinstance(kid, str):
            raise InvalidTokenError("Token has no kid")
        keys = await self._key_set.get(kid)
        if not keys:
            raise InvalidTokenError(
                "Token is signed with an unknown key",
                f"Token has a kid that is not in the key set of {self._key_set.name}",
            )
        # RFC 8725, 3.1: the key says which algorithms are allowed, not the token.
        if algorithm not in keys:
            raise InvalidTokenError(
                "Token is signed with an algorithm that its key does not allow",
                f"Token is signed with {algorithm}, but its key is for {' or '.join(keys)}",
            )
        return keys[algorithm]

    def _check_issuer(self, claims: Mapping[str, Any]) -> None:
        """Check `iss` (RFC 7519, 4.1.1; RFC 8725, 3.8)."""
        issuer = claims.get("iss")
        if issuer not in self._issuers:
            raise InvalidTokenError(
                "Token is from another issuer",
                f"Token has the iss {_shown(issuer)}, not {' or '.join(self._issuers)}: "
                "see JWT_ISSUER",
            )

    def _check_audience(self, audience: object, resource: str | None) -> None:
        """Check `aud` (RFC 7519, 4.1.3; RFC 8725, 3.9)."""
        named = audience if isinstance(audience, list) else [audience]
        accepted = self._audiences if resource is None else (*self._audiences, resource)
        if not any(name in accepted for name in named):
            raise InvalidTokenError(
                "Token is for another audience",
                f"Token has the aud {_shown(audience)}, not {' or '.join(accepted)}: "
                "see JWT_AUDIENCE",
            )


def _shown(claim: object) -> str:
    return repr(claim)[:CLAIM_SHOWN_CHARS]


def _read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the token into its header and its claims, which are not verified yet."""
    segments = token.split(".")
    if len(segments) == 2:  # noqa: PLR2004  # <session id>.<signature>
        raise InvalidTokenError(
            "This is Better Auth's session token; send the JWT that /api/auth/token returns",
            "Two segments: this is Better Auth's session token, not a JWT: call /api/auth/token",
        )
    if len(segments) != 3:  # noqa: PLR2004  # RFC 7515, 3.1: header, payload, signature
        raise InvalidTokenError("Token is not a JWT")
    header, claims, _ = (_decode(segment) for segment in segments)
    return _check_header(_json_object(header)), _json_object(claims)


def _check_header(header: dict[str, Any]) -> dict[str, Any]:
    # RFC 7515, 4.1.11: refuse extensions that are not supported. None is supported.
    if "crit" in header:
        raise InvalidTokenError("Token has a critical header")
    # Better Auth signs its session cookie with the same keys. Only `typ` distinguishes it from an
    # access token (RFC 8725, 3.11 and 3.12).
    typ = str(header.get("typ")).lower().removeprefix("application/")  # RFC 7515, 4.1.9
    if typ == "better-auth.session-cache+jwt":
        raise InvalidTokenError("Token is Better Auth's session cookie, not an access token")
    return header


def _decode(segment: str) -> bytes:
    """Decode base64url strictly (RFC 7515, 2): no padding, foreign characters or stray bits."""
    try:
        decoded = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError as error:
        raise _malformed() from error
    # Python's decoder skips foreign characters. Only the canonical spelling encodes to itself.
    if urlsafe_b64encode(decoded).rstrip(b"=") != segment.encode():
        raise _malformed()
    return decoded


def _json_object(encoded: bytes) -> dict[str, Any]:
    try:
        # From text, since json.loads guesses the encoding of bytes (RFC 8259, 8.1: UTF-8, no BOM).
        value = json.loads(
            encoded.decode("utf-8"), object_pairs_hook=_unique, parse_constant=refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise _malformed() from error
    if not isinstance(value, dict):
        raise _malformed()
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate names (RFC 7515, 4; RFC 7519, 4): parsers differ in which one they use."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _malformed()
    return members


def _malformed() -> InvalidTokenError:
    return InvalidTokenError("Token is malformed")


def _check_signature(token: str, key: Key, algorithm: str) -> None:
    try:
        # `key` is a Key object: python-jose would guess what kind of key a string holds.
        jws.verify(token, key, [algorithm])
    except Exception as error:  # python-jose also raises JWKError, TypeError and others
        raise InvalidTokenError("Token signature is not valid") from error


def _check_times(claims: Mapping[str, Any]) -> None:
    """Check `exp` (required), `nbf` and `iat` (RFC 7519, 4.1.4 to 4.1.6).

    `iat` only has to be a number: it is the time of issue, and does not limit validity.
    """
    if "exp" not in claims:
        raise InvalidTokenError("Token has no expiry")
    for name in ("exp", "nbf", "iat"):
        if name in claims and not _is_finite_number(claims[name]):
            raise InvalidTokenError(f"Token has an {name} that is not a number")
    now = time.time()
    if claims["exp"] <= now:  # no leeway: "on or after which the JWT MUST NOT be accepted"
        raise InvalidTokenError("Token has expired")
    if claims.get("nbf", now) > now + CLOCK_SKEW_SECONDS:
        raise InvalidTokenError("Token is not valid yet")


def _is_finite_number(value: object) -> bool:
    # RFC 7519, 2, NumericDate. In Python a bool is an int, and json reads 1e999 as infinity.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond a float's range
        return False


def _user(claims: Mapping[str, Any]) -> User:
    # Only `sub` names the user. Better Auth signs e-mail-verification and cookie-cache tokens with
    # the same secret; they have no `sub`, but name the user in other claims.
    subject = claims.get("sub")
    if not (isinstance(subject, str) and 0 < len(subject) <= USER_ID_MAX_CHARS):
        raise InvalidTokenError(f"Token has no sub of 1 to {USER_ID_MAX_CHARS} characters")
    if is_blank(subject):
        raise InvalidTokenError("Token has a sub that is blank")
    if not is_storable(subject):
        raise InvalidTokenError("Token has a sub that cannot be stored")
    return User(id=subject, email=_text(claims, "email"), name=_text(claims, "name"))


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) and is_storable(value) else None


async def authenticate(request: Request, resource: str | None = None) -> User:
    """Return the user of the request's token, or raise the 401 of RFC 6750, 3.

    `resource` is one more audience that is accepted.
    """
    credentials = request.headers.getlist("Authorization")
    if len(credentials) > 1:
        raise _unauthorized("Send one Authorization header")
    scheme, _, token = "".join(credentials).partition(" ")
    if scheme.lower() != "bearer":
        # RFC 6750, 3.1: no error code for a request without authentication.
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED,
            "Send a token: Authorization: Bearer <JWT>",
            {"WWW-Authenticate": "Bearer"},
        )
    verifier: TokenVerifier = request.app.state.verifier
    try:
        return await verifier.verify(token.strip(" "), resource)
    except InvalidTokenError as error:
        request.state.reason = error.hint
        raise _unauthorized(str(error)) from error


def _unauthorized(description: str) -> HTTPException:
    challenge = f'Bearer error="invalid_token", error_description="{description}"'
    return HTTPException(HTTPStatus.UNAUTHORIZED, description, {"WWW-Authenticate": challenge})


class _BearerScheme(SecurityBase):
    """The security scheme for /docs. As a dependency, it returns the user that the route found."""

    model = HTTPBearer(
        bearerFormat="JWT",
        description="A JWT of your Better Auth server, or of `uv run main.py token`.",
    )
    scheme_name = "bearer"

    async def __call__(self, request: Request) -> User:
        user: User = request.state.user
        return user


CurrentUser = Annotated[User, Security(_BearerScheme())]


async def require_own_path(
    user_id: Annotated[
        str,
        Path(
            description="Your own user id, such as `ann`: the `sub` of your token.",
            openapi_examples={"Ann": {"value": "ann"}},
        ),
    ],
    user: CurrentUser,
) -> None:
    """Refuse a path with another user's id."""
    if user_id != user.id:
        raise HTTPException(HTTPStatus.FORBIDDEN, NOT_YOUR_PATH)


OwnPath = Depends(require_own_path)
