"""The HTTP protocol: request headers and responses on a real connection, without routes."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from uvicorn.server import ServerState

import protocol
from gate import Headers
from tests.actors import served

NOT_HTTP = {"detail": "Invalid HTTP request received.", "status_code": 400}
TOO_LARGE = {"detail": "The head is larger than 65536 bytes", "status_code": 400}

app = FastAPI()


@app.get("/own")
def own() -> Response:
    return Response(headers={"Cache-Control": "max-age=60", "Vary": "Origin"})


@app.post("/echo")
async def echo(request: Request) -> dict[str, object]:
    body = await request.body()
    return {"body": body.decode(), "authorization": request.headers.get("Authorization")}


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(Headers(app)) as port:
        yield port


def _exchange(port: int, *parts: bytes) -> bytes:
    """Send the parts, and read until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        received = b""
        try:
            for part in parts:
                connection.sendall(part)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:  # pragma: no cover  # the server did not read everything
            pass
        return received


def test_a_response_keeps_the_headers_that_it_sets_itself(port: int) -> None:
    response = _exchange(port, b"GET /own HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").lower()

    assert response.count(b"cache-control: ") == 1
    assert b"cache-control: max-age=60\r\n" in response
    assert b"vary: origin\r\n" in response
    assert b"x-content-type-options: nosniff\r\n" in response


def test_one_connection_serves_many_requests(port: int) -> None:
    request = b"GET /own HTTP/1.1\r\nHost: x\r\n\r\n"
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close")

    for count in (90, 90):
        assert _exchange(port, request * count, last).count(b"HTTP/1.1 200 OK") == count + 1


def test_too_many_pipelined_requests_close_the_connection(port: int) -> None:
    request = b"GET /own HTTP/1.1\r\nHost: x\r\n\r\n"

    responses = _exchange(port, request * (2 * protocol.PIPELINED_MAX))

    assert responses.count(b"HTTP/1.1 200 OK") == protocol.PIPELINED_MAX + 1
    assert responses.count(b"connection: close") == 1


def test_the_request_before_an_invalid_one_gets_its_response(port: int) -> None:
    response = _exchange(port, b"GET /own HTTP/1.1\r\nHost: x\r\n\r\nThis is not HTTP\r\n\r\n")

    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.count(b"HTTP/1.1") == 1


def test_many_requests_in_one_piece_do_not_count_as_one_head(port: int) -> None:
    request = b"GET /own HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"x" * 1000)
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close")

    responses = _exchange(port, request, request * 80 + last[:100], last[100:])

    assert responses.count(b"HTTP/1.1 200 OK") == 82


SMUGGLED = b"GET /own HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: %d" % len(SMUGGLED), SMUGGLED), (b"Transfer-Encoding: chunked", CHUNKED)],
)
@pytest.mark.parametrize("protocol_name", [b"h2c", b"websocket", b"foo"])
@pytest.mark.parametrize("at_once", [True, False])
def test_the_body_of_a_request_that_asks_for_an_upgrade_is_not_a_request(
    port: int, framing: bytes, body: bytes, protocol_name: bytes, *, at_once: bool
) -> None:
    head = (
        b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n"
        b"Content-Type: application/json\r\n%b\r\n\r\n"
    ) % (protocol_name, framing)
    last = b"GET /own HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    requests = [head, body] * 3

    if at_once:
        received = _exchange(port, b"".join([*requests, last]))
    else:
        received = _exchange(port, *requests, last)

    echoed = json.dumps({"body": SMUGGLED.decode(), "authorization": None}, separators=(",", ":"))
    assert received.count(b"HTTP/1.1 200 OK") == 4
    assert received.count(echoed.encode()) == 3


@pytest.mark.parametrize("method", [b"POST", b"CONNECT"])
def test_with_uvicorns_protocol_a_request_for_an_upgrade_closes_the_connection(
    method: bytes,
) -> None:
    head = (
        b"%b /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n"
        b"Content-Length: %d\r\n\r\n"
    ) % (method, len(SMUGGLED))
    with served(Headers(app), http="httptools") as port:
        received = _exchange(port, head, SMUGGLED * 3)

    assert received.count(b"HTTP/1.1") == 1
    assert b"\r\nconnection: close\r\n" in received


def test_connect_is_refused_with_everything_after_it(port: int) -> None:
    received = _exchange(port, b"CONNECT /own HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED)

    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert received.count(b"HTTP/1.1") == 1


def test_a_trailer_is_not_a_header(port: int) -> None:
    received = _exchange(
        port,
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"1\r\n1\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
    )

    assert received.endswith(b'{"body":"1","authorization":null}')


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"This is not HTTP\r\n\r\n"], NOT_HTTP),
        # Exactly this many bytes: if the server closes with unread data, the response is lost.
        ([b"GET / HTTP/1.1\r\n".ljust(16), b"X: ".ljust(65_521, b"x")], TOO_LARGE),
        (
            [b"GET / HTTP/1.1\r\n", *[b"X: " + b"x" * 59 + b"\r\n"] * 1023, b"X: " + b"x" * 46],
            TOO_LARGE,
        ),
    ],
)
def test_refused_request_headers_get_the_standard_error_body(
    port: int, parts: list[bytes], expected: object
) -> None:
    head, _, body = _exchange(port, *parts).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\ncontent-type: application/json\r\n" in head
    assert b"\r\nx-content-type-options: nosniff" in head
    assert json.loads(body) == expected


@pytest.mark.parametrize(
    ("request_part", "responses"),
    [
        (b"", 0),
        (b"GET /own HTT", 0),
        (b"GET /own HTTP/1.1\r\nHost: x\r\n\r\nGET /own HTTP/1.1\r\n", 1),
    ],
)
def test_incomplete_request_headers_close_the_connection(
    port: int, request_part: bytes, responses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)

    assert _exchange(port, request_part).count(b"HTTP/1.1 200 OK") == responses


@pytest.mark.parametrize(
    ("request_sent", "data"),
    [
        (b"GET /own HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
        (b"POST /own HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", b"1"),
    ],
)
def test_data_that_begins_no_request_does_not_keep_a_connection_open(
    port: int, request_sent: bytes, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request_sent)
        assert connection.recv(65536).startswith(b"HTTP/1.1 ")

        connection.sendall(data)

        assert connection.recv(65536) == b""


def test_a_websocket_handshake_is_handled_like_any_request(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    response = _exchange(
        port,
        b"GET /own HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n",
    )

    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert "WebSocket" not in caplog.text


def test_a_request_on_an_idle_connection_is_served_during_shutdown() -> None:
    request = b"GET /own HTTP/1.1\r\nHost: x\r\n\r\n"
    server = served(Headers(app))
    port = server.__enter__()
    with (
        socket.create_connection(("127.0.0.1", port), 30) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        connection.sendall(request)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")

        ending = pool.submit(server.__exit__, None, None, None)
        while _accepts_connections(port):
            time.sleep(0.01)
        connection.sendall(request)
        response = b"".join(iter(lambda: connection.recv(65536), b""))  # to the connection's end
        ending.result()

    assert response.startswith(b"HTTP/1.1 200 OK")
    assert b"\r\nconnection: close" in response


def test_a_connection_accepted_during_shutdown_is_closed_after_its_response() -> None:
    config = uvicorn.Config(app, lifespan="off")
    config.load()

    async def scenario() -> bytes:
        def make_protocol() -> protocol.Protocol:
            asyncio.get_running_loop().call_soon(listener.close)  # before the protocol is notified
            return protocol.Protocol(config, ServerState(), {})

        listener = await asyncio.get_running_loop().create_server(make_protocol, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writer.write(b"GET /own HTTP/1.1\r\nHost: x\r\n\r\n")
        response = await reader.read()  # to the connection's end
        writer.close()
        return response

    response = asyncio.run(scenario())

    assert response.startswith(b"HTTP/1.1 200 OK")
    assert b"\r\nconnection: close" in response


def _accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 30).close()
    except ConnectionError:
        return False
    return True
