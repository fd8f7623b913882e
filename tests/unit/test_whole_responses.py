"""A response is sent in one piece or not at all."""

import asyncio

import pytest
import uvicorn
from starlette.responses import PlainTextResponse, Response
from typing_extensions import override
from uvicorn.server import ServerState

import protocol as http_protocol
from protocol import Protocol


class Recorder(asyncio.Transport):
    """A transport that records each write."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    @override
    def close(self) -> None:
        self.closed = True

    @override
    def is_closing(self) -> bool:
        return self.closed


async def _exchange(request: bytes) -> tuple[list[bytes], bool]:
    """Return the writes, and whether the connection is closed afterwards."""
    transport = Recorder()
    config = uvicorn.Config(PlainTextResponse("whole"), access_log=False)
    config.load()
    protocol = Protocol(config, ServerState(), {})
    protocol.connection_made(transport)
    protocol.data_received(request)
    await asyncio.sleep(0)  # the response is created
    await asyncio.sleep(0)  # the response is sent
    closed = transport.closed
    protocol.connection_lost(None)
    return transport.sent, closed


@pytest.mark.parametrize(("connection", "closes"), [(b"keep-alive", False), (b"close", True)])
def test_headers_and_body_are_sent_in_one_write(connection: bytes, closes: bool) -> None:  # noqa: FBT001
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: " + connection + b"\r\n\r\n"

    (response,), closed = asyncio.run(_exchange(request))

    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert response.endswith(b"\r\n\r\nwhole")
    assert closed is closes


def test_a_response_without_a_body_is_sent_and_its_connection_closed() -> None:
    config = uvicorn.Config(Response(status_code=204), lifespan="off")
    config.load()

    async def send() -> bytes:
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            lambda: Protocol(config, ServerState(), {}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(30):
            response = await reader.read()  # until the connection is closed
        writer.close()
        listener.close()
        return response

    assert asyncio.run(send()).startswith(b"HTTP/1.1 204 No Content\r\n")


def test_a_connection_without_a_request_is_closed_on_shutdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_protocol, "LINGER_SECONDS", 0)

    async def end() -> bool:
        transport = Recorder()
        config = uvicorn.Config(PlainTextResponse("whole"))
        config.load()
        protocol = Protocol(config, ServerState(), {})
        protocol.connection_made(transport)
        protocol.shutdown()
        await asyncio.sleep(0.01)
        return transport.closed

    assert asyncio.run(end())
