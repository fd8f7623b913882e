"""Tokens that must be refused, each for one reason."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import serialization

from main import sign
from tests.actors import SECRET
from tests.auth_server import LATER, SigningKey, b64, jws

ALGORITHMS = [
    "EdDSA",
    "Ed25519",
    "Ed448",
    "ES256",
    "ES384",
    "ES512",
    "ES256K",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "HS256",
    "HS384",
    "none",
    "dir",
    "RSA1_5",
]
CLAIMS: dict[str, Any] = {"sub": "ann", "exp": LATER}


def hs256(
    claims: bytes | dict[str, Any],
    header: bytes | dict[str, Any] | None = None,
    hash_: str = "sha256",
) -> str:
    """Sign any header and payload with the secret of the tests."""
    secret = SECRET.get_secret_value().encode()
    header = {"alg": "HS256", "typ": "JWT"} if header is None else header
    return jws(header, claims, lambda signed: hmac.digest(secret, signed, hash_))


def flip(token: str, number: int, at: int, bit: int) -> str:
    """Flip one bit of the bytes that a segment encodes."""
    segments = token.split(".")
    raw = bytearray(base64.urlsafe_b64decode(segments[number] + "=="))
    raw[at % len(raw)] ^= 1 << bit
    segments[number] = b64(bytes(raw))
    return ".".join(segments)


VALID_TOKEN = hs256(CLAIMS)

# Encodings that Python's json detects. JSON is UTF-8 without a byte order mark (RFC 8259, 8.1).
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
# Python's json accepts these, although RFC 8259 does not.
NOT_JSON = {
    f"{value.decode()}{where}": template % value
    for value in (b"NaN", b"Infinity", b"-Infinity")
    for where, template in {
        "": b"%s",
        " in a list": b"[1,%s]",
        ", nested": b'{"y":[{"z":%s}]}',
    }.items()
}
BLANK_SUBJECTS = {
    "a space": " ",
    "a line feed": "\n",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "line separator": "\u2028",
    "next line": "\u0085",
    "zero width space": "\u200b",
    "byte order mark": "\ufeff",
    "Hangul filler": "\u3164",
    "variation selector": "\ufe0f",
    "soft hyphen": "\u00ad",
    "Braille blank": "\u2800",
    "tag space": "\U000e0020",
    "escape": "\x1b",
    "several": " \t\u200d\u2060\u00a0",
}

MALFORMED_TOKENS = {
    "empty": "",
    "one segment": "x",
    "session token": "x.y",
    "four segments": VALID_TOKEN + ".x",
    "five segments, as a JWE has": "a.b.c.d.e",
    "empty segments": "..",
    "no signature": VALID_TOKEN.rpartition(".")[0] + ".",
    "padding": VALID_TOKEN + "=",
    "white space": VALID_TOKEN.replace(".", ". "),
    "line feed": VALID_TOKEN + "\n",
    "foreign character": VALID_TOKEN[:-1] + "!",
    "not ASCII": VALID_TOKEN[:-1] + "é",
    "base64, not base64url": hs256(CLAIMS | {"x": "???>>>"}).replace("_", "/").replace("-", "+"),
    "too long": hs256(CLAIMS | {"x": "x" * 8192}),
    "header is not JSON": hs256(CLAIMS, b"{"),
    "header is not UTF-8": hs256(CLAIMS, b'{"alg":"HS256","x":"\xff"}'),
    **{
        f"header is {encoding}": hs256(CLAIMS, '{"alg":"HS256"}'.encode(encoding))
        for encoding in ENCODINGS
    },
    **{
        f"payload is {encoding}": hs256(json.dumps(CLAIMS).encode(encoding))
        for encoding in ENCODINGS
    },
    "header is a list": hs256(CLAIMS, b"[]"),
    "header is null": hs256(CLAIMS, b"null"),
    "header is deep": hs256(CLAIMS, b"[" * 1500),
    "header has a name twice": hs256(CLAIMS, b'{"alg":"none","alg":"HS256"}'),
    "payload is not JSON": hs256(b"sub=ann"),
    "payload is a string": hs256(b'"ann"'),
    "payload is deep": hs256(b'{"sub":' * 800),
    "payload has a name twice": hs256(b'{"sub":"bob","sub":"ann","exp":%d}' % LATER),
    "payload has a long number": hs256(b'{"sub":"ann","exp":%s}' % (b"9" * 4999)),
    **{
        f"header has {name}": hs256(CLAIMS, b'{"alg":"HS256","x":%s}' % value)
        for name, value in NOT_JSON.items()
    },
    **{
        f"payload has {name}": hs256(b'{"sub":"ann","exp":%d,"x":%s}' % (LATER, value))
        for name, value in NOT_JSON.items()
    },
}
TOKENS_WITH_INVALID_HEADERS = {
    "no algorithm": hs256(CLAIMS, {}),
    "none": hs256(CLAIMS, {"alg": "none"}),
    "None": hs256(CLAIMS, {"alg": "None"}),
    "null": hs256(CLAIMS, {"alg": None}),
    "a list": hs256(CLAIMS, {"alg": ["HS256"]}),
    "lower case": hs256(CLAIMS, {"alg": "hs256"}),
    "HS384": hs256(CLAIMS, {"alg": "HS384"}, "sha384"),
    "HS512": hs256(CLAIMS, {"alg": "HS512"}, "sha512"),
    "RS256": hs256(CLAIMS, {"alg": "RS256"}),
    "EdDSA": hs256(CLAIMS, {"alg": "EdDSA"}),
    "critical": hs256(CLAIMS, {"alg": "HS256", "crit": ["x"]}),
    "critical, empty": hs256(CLAIMS, {"alg": "HS256", "crit": []}),
    "session cookie": hs256(CLAIMS, {"alg": "HS256", "typ": "better-auth.session-cache+jwt"}),
    "session cookie, as a media type": hs256(
        CLAIMS, {"alg": "HS256", "typ": "application/better-auth.session-cache+jwt"}
    ),
    "session cookie, in capitals": hs256(
        CLAIMS, {"alg": "HS256", "typ": "Better-Auth.Session-Cache+JWT"}
    ),
}
INVALID_TIMES: list[Any] = [
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
TOKENS_WITH_INVALID_TIMES = (
    {
        f"{name} is {value!r:.20}": hs256(CLAIMS | {name: value})
        for name in ("exp", "nbf", "iat")
        for value in INVALID_TIMES
    }
    | {
        f"{name} is {value.decode()}": hs256(
            b'{"sub":"ann","exp":%d,"%s":%s}' % (LATER, name.encode(), value)
        )
        for name in ("nbf", "iat")
        for value in (b"1e999", b"-1e999")
    }
    | {
        f"exp is {value.decode()}": hs256(b'{"sub":"ann","exp":%s}' % value)
        for value in (b"1e999", b"-1e999")
    }
)
TOKENS_WITH_INVALID_CLAIMS = {
    "no expiry": hs256({"sub": "ann"}),
    "expired": hs256(CLAIMS | {"exp": 1_000_000_000}),
    "expires now": hs256(CLAIMS | {"exp": int(time.time())}),
    "expired long ago": hs256(CLAIMS | {"exp": -(10**30)}),
    "not yet valid": hs256(CLAIMS | {"nbf": LATER}),
    "not valid for an hour": hs256(CLAIMS | {"nbf": int(time.time()) + 3600}),
    "no sub": hs256({"exp": LATER, "id": "ann", "email": "a@b.example", "user_id": "ann"}),
    **{
        f"sub is {value!r:.20}": hs256(CLAIMS | {"sub": value})
        for value in (None, "", 0, 1, True, ["ann"], {"id": "ann"}, "x" * 256, "a\0b", "\ud800")
    },
    **{f"sub is {name}": hs256(CLAIMS | {"sub": blank}) for name, blank in BLANK_SUBJECTS.items()},
}
TOKENS_WITH_INVALID_SIGNATURES = {
    "another secret": sign(type(SECRET)("another secret of more than 32 bytes"), "ann", 5),
    "truncated": VALID_TOKEN[:-2],
    "of another token": f"{VALID_TOKEN.rpartition('.')[0]}.{hs256({}).rpartition('.')[2]}",
    **{
        f"bit {bit} of segment {number} flipped": flip(VALID_TOKEN, number, 0, bit)
        for number in range(3)
        for bit in range(8)
    },
    **{
        f"ends in {last}": VALID_TOKEN[:-1] + last
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if last != VALID_TOKEN[-1]
    },
}

# HS256 tokens. All are signed with the right secret, except those of the last table.
HS256 = {
    f"{kind}: {name}": token
    for kind, tokens in [
        ("shape", MALFORMED_TOKENS),
        ("header", TOKENS_WITH_INVALID_HEADERS),
        ("time", TOKENS_WITH_INVALID_TIMES),
        ("claim", TOKENS_WITH_INVALID_CLAIMS),
        ("signature", TOKENS_WITH_INVALID_SIGNATURES),
    ]
    for name, token in tokens.items()
}


def of_key_set(key: SigningKey, claims: dict[str, Any], canary: str) -> dict[str, str]:
    """Return tokens related to a key of the key set. The URL `canary` must never be requested."""
    other = SigningKey(key.algorithm)
    good = key.token(claims)
    header, payload, signature = good.split(".")
    jwk = other.member
    unsigned = {
        "none": jws({"alg": "none", "kid": "k1"}, claims, lambda _: b""),
        "no signature": f"{header}.{payload}.",
    }
    forged_headers: dict[str, dict[str, Any]] = {
        "same kid": {},
        "jwk": {"jwk": jwk},
        "jku": {"jku": canary},
        "x5u": {"x5u": canary},
        "jku and kid of its own": {"jku": canary, "kid": "k2"},
        "x5c": {"x5c": [base64.b64encode(b"x" * 300).decode()]},
        "x5t": {"x5t": b64(b"x" * 20), "x5t#S256": b64(b"x" * 32)},
        "kid is a path": {"kid": "../../../../dev/null"},
        "kid is a query": {"kid": "' OR '1'='1"},
        "kid is a URL": {"kid": canary},
        "kid is long": {"kid": "k" * 5000},
    }
    headers = {
        f"other key, {name}": other.token(claims, **given) for name, given in forged_headers.items()
    }
    kids: list[Any] = [None, 1, ["k1"], {}, "", "K1"]
    no_kid = {f"kid is {kid!r:.10}": key.token(claims, kid=kid) for kid in kids}
    rewritten = {
        f"says {algorithm}": key.token(claims, alg=algorithm)
        for algorithm in ALGORITHMS
        if algorithm != key.algorithm
    }
    confused = {
        f"HMAC with the public key, {name}": jws(
            {"alg": "HS256", "kid": "k1"}, claims, _hmac_with(secret)
        )
        for name, secret in public_key_texts(key).items()
    }
    claimed = {
        "another aud": key.token(claims | {"aud": "http://evil.example"}),
        "no aud": key.token({k: v for k, v in claims.items() if k != "aud"}),
        "aud is null": key.token(claims | {"aud": None}),
        "aud is an empty list": key.token(claims | {"aud": []}),
        "aud is a list of others": key.token(claims | {"aud": ["x", 1, None]}),
        "aud is an object": key.token(claims | {"aud": {claims["aud"]: 1}}),
        "aud of the session cookie": key.token(claims | {"aud": "better-auth:session-cache"}),
        "aud is a prefix": key.token(claims | {"aud": claims["aud"][:-1]}),
        "another iss": key.token(claims | {"iss": "http://evil.example"}),
        "no iss": key.token({k: v for k, v in claims.items() if k != "iss"}),
        "iss is a list": key.token(claims | {"iss": [claims["iss"]]}),
        "iss with a slash": key.token(claims | {"iss": claims["iss"] + "/"}),
        "session cookie": key.token(claims, typ="better-auth.session-cache+jwt"),
        "expired": key.token(claims | {"exp": 1_000_000_000}),
        "no exp": key.token({k: v for k, v in claims.items() if k != "exp"}),
        "no sub": key.token({k: v for k, v in claims.items() if k != "sub"}),
        **{
            f"sub is {name}": key.token(claims | {"sub": blank})
            for name, blank in BLANK_SUBJECTS.items()
        },
        "not valid for an hour": key.token(claims | {"nbf": time.time() + 3600}),
        **{
            f"{name} is {value}": key.token(claims | {name: value})
            for name in ("exp", "nbf", "iat", "x")
            for value in (float("nan"), float("inf"), float("-inf"))
        },
        **{
            f"header has {value}": key.token(claims, x=[value])
            for value in (float("nan"), float("inf"), float("-inf"))
        },
        "critical": key.token(claims, crit=["exp"]),
    }
    flipped = {
        f"bit {bit} of byte {at} of segment {number} flipped": flip(good, number, at, bit)
        for number in range(3)
        for at, bit in ((0, 0), (9, 3), (20, 7), (30, 5))
    }
    signed = {
        "signature is all zero": f"{header}.{payload}.{b64(bytes(len(signature) * 3 // 4))}",
        "signature is too short": good[:-8],
        "signature is too long": f"{good}AAAA",
        "signature twice": f"{good}{signature}",
    }
    tables = [unsigned, headers, no_kid, rewritten, confused, claimed, flipped, signed]
    return {f"{key.algorithm}: {name}": token for table in tables for name, token in table.items()}


def _hmac_with(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda signed: hmac.digest(secret, signed, "sha256")


def public_key_texts(key: SigningKey) -> dict[str, bytes]:
    """Return the public key in forms that attackers use as a shared secret (RFC 8725, 2.1)."""
    public = key.private.public_key()
    encoding, form = serialization.Encoding, serialization.PublicFormat
    pem = public.public_bytes(encoding.PEM, form.SubjectPublicKeyInfo)
    return {
        "PEM": pem,
        "PEM, trimmed": pem.strip(),
        "DER": public.public_bytes(encoding.DER, form.SubjectPublicKeyInfo),
        "OpenSSH": public.public_bytes(encoding.OpenSSH, form.OpenSSH),
        "JWK": json.dumps(key.member).encode(),
        "parameter": str(key.member.get("x") or key.member["n"]).encode(),
        "empty": b"",
    }
