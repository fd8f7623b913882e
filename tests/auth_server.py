"""An HTTP server with a key set, and keys that sign tokens like Better Auth's."""

import base64
import contextlib
import copy
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA512

LATER = 4_102_444_800  # 2100-01-01
PATH = "/api/auth/jwks"
ALGORITHMS = ["EdDSA", "Ed25519", "ES256", "ES512", "RS256", "PS256"]


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _b64_int(number: int, length: int | None = None) -> str:
    return b64(number.to_bytes(length or (number.bit_length() + 7) // 8, "big"))


def jws(
    header: bytes | dict[str, Any], payload: bytes | dict[str, Any], sign: Callable[[bytes], bytes]
) -> str:
    """Sign any header and payload."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    ]
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(sign(signed.encode()))}"


class SigningKey:
    """A key pair of one algorithm, with its member of a key set."""

    def __init__(self, algorithm: str, kid: str = "k1", *, bits: int = 2048) -> None:
        self.algorithm = algorithm
        self.member: dict[str, Any] = {"kid": kid, "alg": algorithm}
        self.private: Any
        if algorithm in {"EdDSA", "Ed25519"}:
            self.private = ed25519.Ed25519PrivateKey.generate()
            x = b64(self.private.public_key().public_bytes_raw())
            self.member |= {"kty": "OKP", "crv": "Ed25519", "x": x}
        elif algorithm in {"ES256", "ES512"}:
            curve = ec.SECP256R1() if algorithm == "ES256" else ec.SECP521R1()
            self.private = ec.generate_private_key(curve)
            self._length = (curve.key_size + 7) // 8
            point = self.private.public_key().public_numbers()
            self.member |= {"kty": "EC", "crv": {256: "P-256", 521: "P-521"}[curve.key_size]}
            self.member |= {name: _b64_int(getattr(point, name), self._length) for name in "xy"}
        else:
            self.private = rsa.generate_private_key(65537, bits)
            numbers = self.private.public_key().public_numbers()
            self.member |= {"kty": "RSA", "n": _b64_int(numbers.n), "e": _b64_int(numbers.e)}

    def signing(self, algorithm: str) -> "SigningKey":
        """Return the same key pair for another algorithm of its type."""
        other = copy.copy(self)
        other.algorithm = algorithm
        other.member = self.member | {"alg": algorithm}
        return other

    def sign(self, signed: bytes) -> bytes:
        match self.algorithm:
            case "EdDSA" | "Ed25519":
                signature: bytes = self.private.sign(signed)
            case "ES256" | "ES512":
                digest = SHA256() if self.algorithm == "ES256" else SHA512()
                r, s = decode_dss_signature(self.private.sign(signed, ec.ECDSA(digest)))
                signature = r.to_bytes(self._length, "big") + s.to_bytes(self._length, "big")
            case "RS256":
                signature = self.private.sign(signed, padding.PKCS1v15(), SHA256())
            case _:
                pss = padding.PSS(padding.MGF1(SHA256()), SHA256.digest_size)
                signature = self.private.sign(signed, pss, SHA256())
        return signature

    def token(self, claims: dict[str, Any], **header: object) -> str:
        """Sign claims with the header that Better Auth uses."""
        return jws({"alg": self.algorithm, "kid": self.member["kid"]} | header, claims, self.sign)


class AuthServer(http.server.ThreadingHTTPServer):
    """Serves a key set, records the requests, and can misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.members: list[Any] = []
        self.body: bytes | None = None
        self.status = 200
        self.headers: dict[str, str] = {}
        self.delay_seconds = 0.0
        self.pause_seconds = 0.0  # between the bytes of the body
        self.requested: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def fetches(self) -> int:
        return self.requested.count(PATH)

    def claims(self, **others: object) -> dict[str, Any]:
        """Return the claims that Better Auth's jwt plugin issues for Ann."""
        return {"sub": "ann", "id": "ann", "exp": LATER, "iss": self.url, "aud": self.url} | others


class _Handler(http.server.BaseHTTPRequestHandler):
    server: AuthServer

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        time.sleep(self.server.delay_seconds)
        body = self.server.body
        if body is None:
            body = json.dumps({"keys": self.server.members}).encode()
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have closed the connection
            if not self.server.pause_seconds:
                self.wfile.write(body)
            while self.server.pause_seconds:
                self.wfile.write(b" ")
                time.sleep(self.server.pause_seconds)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def auth_server() -> Iterator[AuthServer]:
    with AuthServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
