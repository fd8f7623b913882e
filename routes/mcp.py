"""The MCP server: assistants manage the tasks of the user whose token they send.

It is stateless, so every worker can answer every request (https://modelcontextprotocol.io). The
`mcp` package speaks the protocol; the tools execute the same statements as the routes.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    JSONRPCNotification,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from pydantic_core import from_json, to_json
from starlette.types import Message
from typing_extensions import override

from auth import CurrentUser, authenticate
from db import Database, get_session
from errors import EXCEPTION_HANDLERS
from guard import GuardedRoute
from models import User
from routes.tools import DEFINITIONS, TOOLS, Caller, Tool
from settings import MCP_METADATA_PATH, Settings

INSTRUCTIONS = """\
Manage the to-do list of the signed-in user. Tasks have a title, a description, a status, a due date, a priority and tags.
Due dates are in the user's local time, without a time zone: `2026-01-31` is a whole day, `2026-01-31T17:00` a time on it.
"""  # noqa: E501  # one line per sentence
NOT_A_MESSAGE = "The body is not a JSON-RPC 2.0 message"
UNKNOWN = "is not an argument of this tool"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

logger = logging.getLogger(__name__)
session_of = asynccontextmanager(get_session)


class McpRoute(GuardedRoute):
    """A route that also accepts tokens for MCP_URL, and tells other clients where to get one."""

    @override
    async def authenticate(self, request: Request) -> User:
        settings: Settings = request.app.state.settings
        try:
            return await authenticate(request, settings.mcp_url)
        except HTTPException as error:
            challenge = (error.headers or {})["WWW-Authenticate"]
            separator = "," if "=" in challenge else ""
            # RFC 9728, 5.1
            challenge += f'{separator} resource_metadata="{settings.mcp_metadata_url}"'
            raise HTTPException(
                error.status_code, error.detail, {"WWW-Authenticate": challenge}
            ) from error


async def require_known_site(request: Request) -> None:
    """Refuse web pages of other sites, even if their host name leads to this server.

    The specification requires it against DNS rebinding, with which a page reaches servers in the
    user's network.
    """
    settings: Settings = request.app.state.settings
    host = re.sub(":[0-9]*$", "", request.headers.get("Host", "").lower())
    mcp_url = urlsplit(settings.mcp_url)
    if host not in LOOPBACK | {re.sub(":[0-9]*$", "", mcp_url.netloc)}:
        raise HTTPException(
            HTTPStatus.MISDIRECTED_REQUEST, "The Host header is not the host of MCP_URL"
        )
    origin = request.headers.get("Origin")
    allowed = {*settings.cors_origins, f"{mcp_url.scheme}://{mcp_url.netloc}"}
    if origin is not None and "*" not in allowed and origin not in allowed:
        raise HTTPException(HTTPStatus.FORBIDDEN, "The Origin header is not in CORS_ORIGINS")


@asynccontextmanager
async def run_server(app: FastAPI) -> AsyncIterator[None]:
    """Run the MCP server while the app runs."""
    server: Server[Any] = Server(
        "todo-backend",
        title="Tasks",
        version=app.version,
        instructions=INSTRUCTIONS,
        get_tool_input_schema=lambda _: None,  # no tool has arguments in headers
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    # No spans of the package: their names would contain whatever the client sends as a name. The
    # route's span is there already.
    server.middleware.clear()
    manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)
    async with manager.run():
        app.state.mcp = manager
        yield


router = APIRouter(
    route_class=McpRoute, dependencies=[Depends(require_known_site)], lifespan=run_server
)
metadata_router = APIRouter()


@metadata_router.get(MCP_METADATA_PATH, include_in_schema=False)
async def read_metadata(request: Request) -> dict[str, object]:
    """Tell OAuth clients which server signs tokens for /mcp (RFC 9728, 2)."""
    settings: Settings = request.app.state.settings
    return {
        "resource": settings.mcp_url,
        "resource_name": "Tasks",
        "bearer_methods_supported": ["header"],
        **({"authorization_servers": [url]} if (url := settings.authorization_server) else {}),
    }


@router.post("/mcp", include_in_schema=False)
async def answer_message(request: Request, _: CurrentUser) -> Response:
    """Answer one message of the protocol."""
    manager: StreamableHTTPSessionManager = request.app.state.mcp
    message = await request.body()
    _refuse_malformed(message)
    received: list[Message] = [{"type": "http.request", "body": message}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not received:
            await asyncio.Event().wait()  # the client stays connected
        return received.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    await manager.handle_request(request.scope, receive, send)
    start, *parts = sent
    body = b"".join(part["body"] for part in parts)
    if start["status"] >= HTTPStatus.BAD_REQUEST and not _is_protocol_response(body):
        refused = start["status"] == HTTPStatus.NOT_ACCEPTABLE
        raise HTTPException(start["status"], "Send Accept: application/json" if refused else None)
    headers = {str(name, "latin-1"): str(value, "latin-1") for name, value in start["headers"]}
    return Response(body, start["status"], headers)


def _is_protocol_response(body: bytes) -> bool:
    """Tell whether the body answers a message: errors of the protocol have the message's id."""
    return body.startswith(b"{") and from_json(body).get("id") is not None


def _refuse_malformed(message: bytes) -> None:
    """Refuse what is not a JSON-RPC message.

    The package would repeat it in its error message, and treat a request whose id is not valid as a
    notification, which gets no answer.
    """
    try:
        parsed = from_json(message, allow_inf_nan=False)
        kind = type(jsonrpc_message_adapter.validate_python(parsed, by_name=False))
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, NOT_A_MESSAGE) from error
    if kind is JSONRPCNotification and "id" in parsed:
        raise HTTPException(HTTPStatus.BAD_REQUEST, NOT_A_MESSAGE)


async def list_tools(_: object, __: PaginatedRequestParams | None) -> ListToolsResult:
    """List the tools. They are the same for every user."""
    return ListToolsResult(tools=DEFINITIONS)


async def call_tool(
    context: ServerRequestContext[Any, Request], parameters: CallToolRequestParams
) -> CallToolResult:
    """Call a tool. What goes wrong is its result, which the assistant reads, not an HTTP error."""
    tool, request = TOOLS.get(parameters.name), context.request
    if tool is None or request is None:
        raise MCPError(INVALID_PARAMS, "There is no such tool")
    request.state.tool = tool.name
    try:
        result = await _run(tool, parameters.arguments or {}, request)
    except Exception as error:  # noqa: BLE001  # the handlers of the app know all of them
        text = await _explain(error, request)
        return CallToolResult(content=[TextContent(text=text)], is_error=True)
    # The specification asks for the same as text, for clients that do not know structured content.
    return CallToolResult(
        content=[TextContent(text=str(result, "utf-8"))], structured_content=from_json(result)
    )


async def _run(tool: Tool, arguments: dict[str, Any], request: Request) -> bytes:
    """Validate the arguments and run the tool as the route class runs a handler."""
    try:
        validated = tool.arguments.validate_python(arguments)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise RequestValidationError(
            [
                {
                    "type": problem["type"],
                    "loc": ("arguments", *problem["loc"]),
                    "msg": UNKNOWN if problem["type"] == "extra_forbidden" else problem["msg"],
                }
                for problem in problems
            ]
        ) from error
    database: Database = request.app.state.database
    settings: Settings = request.app.state.settings
    async with session_of(request) as session:
        caller = Caller(request.state.user, session, settings.tasks_per_user)
        result = await database.run(caller.user.id, partial(tool.run, validated, caller))
    return to_json(result)


async def _explain(error: Exception, request: Request) -> str:
    """Return the `detail` with which a route would respond to this error."""
    kind = next(kind for kind in type(error).mro() if kind in EXCEPTION_HANDLERS)
    try:
        response = await EXCEPTION_HANDLERS[kind](request, error)
    except Exception:  # noqa: BLE001  # the handler does not know the error either
        response = await EXCEPTION_HANDLERS[Exception](request, error)
    if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("A tool failed", exc_info=error)
    detail: str = from_json(bytes(response.body))["detail"]
    return detail
