"""Clients of assistants call every tool of a real service with two processes."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from sqlalchemy import URL

from tests.actors import SECRET, bearer
from tests.e2e.conftest import needs_node, npm_ci
from tests.e2e.server import Server

INSPECTOR = Path(__file__).with_name("inspector")
TOOLS = {"add_task", "list_tasks", "update_task", "complete_task", "delete_task"}


@pytest.fixture
def server(start: Callable[..., Server], database_url: URL) -> Server:
    return start(
        *["uv", "run", "main.py", "--port", "{port}", "--workers", "2"],
        BETTER_AUTH_SECRET=SECRET.get_secret_value(),
        DATABASE_URL=database_url.render_as_string(hide_password=False),
        MCP="true",
    ).wait("/ready")


@pytest.mark.anyio
# The first performs the handshake of the versions up to 2025-11-25, the second does not.
@pytest.mark.parametrize("version", ["legacy", "2026-07-28"])
async def test_the_official_client_can_call_every_tool(
    server: Server, version: Literal["legacy", "2026-07-28"]
) -> None:
    async with (
        httpx2.AsyncClient(headers=bearer("ann")) as http,
        httpx2.AsyncClient(headers=bearer("bob")) as bobs_http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=version) as ann,
        Client(
            streamable_http_client(f"{server.url}/mcp", http_client=bobs_http), mode=version
        ) as bob,
    ):
        tools = (await ann.list_tools()).tools  # with the schemas of results, which it checks

        async def call(name: str, **arguments: object) -> dict[str, Any]:
            result = await ann.call_tool(name, arguments)
            value: dict[str, Any] = result.structured_content or {}
            assert not result.is_error, result
            return value

        assert {tool.name for tool in tools} == TOOLS
        task = await call("add_task", title="Buy milk", tags=["shopping"], due_date="2026-01-31")
        assert await call("list_tasks", tag=["Shopping"]) == {
            "tasks": [task],
            "total": 1,
            "next_cursor": None,
        }
        changed = await call("update_task", task_id=task["id"], priority="high", due_date=None)
        assert changed == task | {
            "priority": "high",
            "due_date": None,
            "updated_at": changed["updated_at"],
        }
        completed = await call("complete_task", task_id=task["id"])
        assert completed["status"] == "completed"
        for tool in ("update_task", "complete_task", "delete_task"):
            refused = await bob.call_tool(tool, {"task_id": task["id"]})
            assert refused.is_error
            assert [vars(content)["text"] for content in refused.content] == ["Task not found"]
        assert await call("delete_task", task_id=task["id"]) == {"deleted_id": task["id"]}
        assert (await call("list_tasks"))["tasks"] == []


@pytest.fixture(scope="session")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MCP inspector, which uses the TypeScript SDK."""
    folder = tmp_path_factory.mktemp("inspector")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(INSPECTOR / name, folder)
    npm_ci(folder)
    return folder / "node_modules" / ".bin" / "mcp-inspector"


@needs_node
def test_a_client_in_another_language_can_call_every_tool(server: Server, inspector: Path) -> None:
    authorization = f"Authorization: {bearer('ann')['Authorization']}"

    def ask(method: str, *arguments: str) -> dict[str, Any]:
        target = [f"{server.url}/mcp", "--transport", "http", "--header", authorization]
        run = subprocess.run(
            [str(inspector), "--cli", *target, "--method", method, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        answer: dict[str, Any] = json.loads(run.stdout)
        return answer

    def call(name: str, **arguments: object) -> dict[str, Any]:
        given = [f"--tool-arg={key}={value}" for key, value in arguments.items()]
        answer = ask("tools/call", "--tool-name", name, *given)
        assert answer["isError"] is False, answer
        value: dict[str, Any] = answer["structuredContent"]
        return value

    assert {tool["name"] for tool in ask("tools/list")["tools"]} == TOOLS
    task = call("add_task", title="Buy milk", tags='["shopping"]')
    assert task["tags"] == ["shopping"]
    assert call("list_tasks", limit=5)["tasks"] == [task]
    assert call("update_task", task_id=task["id"], title="Milk")["title"] == "Milk"
    assert call("complete_task", task_id=task["id"])["status"] == "completed"
    assert call("delete_task", task_id=task["id"]) == {"deleted_id": task["id"]}
    missing = ask("tools/call", "--tool-name", "delete_task", f"--tool-arg=task_id={task['id']}")
    assert missing["content"] == [{"type": "text", "text": "Task not found"}]
