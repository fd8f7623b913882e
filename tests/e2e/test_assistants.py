"""Assistants sign their user in at a real Better Auth server, and call tools with its tokens."""

import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from playwright.async_api import Page, async_playwright, expect
from pydantic import AnyUrl

from settings import ROOT
from tests.actors import SECRET
from tests.e2e.conftest import CHROMIUM, LOOPBACK_ONLY, needs_chromium, needs_node, npm_ci
from tests.e2e.server import Server, free_port

pytestmark = [needs_node, needs_chromium]

AUTH_SERVER = Path(__file__).with_name("assistants")
DOCUMENT = ROOT / "docs" / "assistants.md"
ANN = {"name": "Ann", "email": "ann@example.com", "password": "correct horse"}
CALLBACK = "http://127.0.0.1:3118/callback"  # the test answers for it, in the browser


class Deployment(NamedTuple):
    auth: Server
    tasks: Server

    @property
    def mcp_url(self) -> str:
        return f"{self.tasks.url}/mcp"


class Assistant(NamedTuple):
    """The client of the official SDK, at work for Ann."""

    client: Client
    oauth: OAuthClientProvider
    page: Page  # in Ann's browser
    visited: list[str]  # where it sent her
    tokens: list[dict[str, Any]]  # the responses of the token endpoint


class _Memory:
    """Where an assistant keeps its tokens."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@pytest.fixture(scope="session")
def auth_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a Better Auth server that is configured as the document says."""
    folder = tmp_path_factory.mktemp("assistants")
    installed = shutil.ignore_patterns("node_modules")
    shutil.copytree(AUTH_SERVER, folder, ignore=installed, dirs_exist_ok=True)
    (configuration,) = re.findall(r"```js\n(// auth\.mjs\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (folder / "auth.mjs").write_text(configuration)
    npm_ci(folder)
    return folder


@pytest.fixture
def deployment(auth_server: Path, start: Callable[..., Server]) -> Deployment:
    """Better Auth, where Ann has signed up, and the task server."""
    auth_port, tasks_port = free_port(), free_port()
    urls = {
        "BETTER_AUTH_URL": f"http://127.0.0.1:{auth_port}",
        "MCP_URL": f"http://127.0.0.1:{tasks_port}/mcp",
    }
    secret = SECRET.get_secret_value()
    script = str(auth_server / "server.mjs")
    auth = start("node", script, port=auth_port, BETTER_AUTH_SECRET=secret, **urls)
    main = ["uv", "run", "main.py", "--port", "{port}"]
    tasks = start(*main, port=tasks_port, MCP="true", **urls).wait("/ready")
    auth.wait("/api/auth/ok")
    httpx2.post(f"{auth.url}/api/auth/sign-up/email", json=ANN).raise_for_status()
    return Deployment(auth, tasks)


@asynccontextmanager
async def _assistant(mcp_url: str) -> AsyncIterator[Assistant]:
    """Connect an assistant that knows no more than the URL."""
    visited: list[str] = []
    tokens: list[dict[str, Any]] = []

    async def sign_in(url: str) -> None:
        visited.append(url)
        await page.goto(url)
        await page.get_by_label("Email").fill(ANN["email"])
        await page.get_by_label("Password").fill(ANN["password"])
        await page.get_by_role("button", name="Sign in").click()
        question = "Allow Claude at 127.0.0.1:3118 to read and change your tasks?"
        await expect(page.get_by_role("heading")).to_have_text(question)
        await page.get_by_role("button", name="Allow").click()

    async def receive_code() -> AuthorizationCodeResult:
        await page.wait_for_url(f"{CALLBACK}?**")
        query = dict(parse_qsl(urlsplit(page.url).query))
        return AuthorizationCodeResult.model_validate(query)

    async def note_tokens(response: httpx2.Response) -> None:
        if response.url.path.endswith("/token"):
            await response.aread()
            tokens.append(response.json())

    metadata = OAuthClientMetadata(client_name="Claude", redirect_uris=[AnyUrl(CALLBACK)])
    oauth = OAuthClientProvider(mcp_url, metadata, _Memory(), sign_in, receive_code)
    hooks = {"response": [note_tokens]}
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=CHROMIUM, args=[LOOPBACK_ONLY]) as browser,
        httpx2.AsyncClient(auth=oauth, event_hooks=hooks) as http,
    ):
        page = await browser.new_page()
        await page.route(f"{CALLBACK}?**", lambda route: route.fulfill(body="Signed in"))
        async with Client(streamable_http_client(mcp_url, http_client=http)) as client:
            yield Assistant(client, oauth, page, visited, tokens)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.anyio
async def test_an_assistant_needs_only_the_url_and_the_users_consent(
    deployment: Deployment,
) -> None:
    async with _assistant(deployment.mcp_url) as assistant:
        added = await assistant.client.call_tool("add_task", {"title": "Buy milk"})

        token = await assistant.page.request.get(f"{deployment.auth.url}/api/auth/token")
        of_page = _bearer((await token.json())["token"])

    tasks = httpx2.get(f"{deployment.tasks.url}/api/tasks", headers=of_page).json()
    assert [task["title"] for task in tasks] == ["Buy milk"]
    assert tasks == [added.structured_content]


@pytest.mark.anyio
async def test_a_token_that_has_expired_is_renewed_without_the_user(deployment: Deployment) -> None:
    async with _assistant(deployment.mcp_url) as assistant:
        assistant.oauth.context.token_expiry_time = 1

        listed = await assistant.client.call_tool("list_tasks", {})

    assert listed.structured_content == {"tasks": [], "total": 0, "next_cursor": None}
    first, second = assistant.tokens
    assert first["access_token"] != second["access_token"]
    assert len(assistant.visited) == 1


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "https://claude.ai/api/mcp/auth_callback",
        "http://localhost:52011/callback",
        "http://127.0.0.1:52011/callback",
    ],
)
def test_an_assistant_registers_without_saying_what_kind_of_application_it_is(
    deployment: Deployment, redirect_uri: str
) -> None:
    client = {"redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none"}

    response = httpx2.post(f"{deployment.auth.url}/api/auth/oauth2/register", json=client)

    assert response.status_code == 201
    assert response.json()["resources"] == [deployment.mcp_url]


@pytest.mark.anyio
async def test_the_tokens_of_an_assistant_are_refused_elsewhere(
    deployment: Deployment, start: Callable[..., Server]
) -> None:
    other = start(
        "uv", "run", "main.py", "--port", "{port}",
        BETTER_AUTH_URL=deployment.auth.url,
        MCP="true",
        MCP_URL="http://127.0.0.1/mcp",
    ).wait("/ready")  # fmt: skip
    async with _assistant(deployment.mcp_url) as assistant:
        (issued,) = assistant.tokens
    access, identity = (_bearer(issued[name]) for name in ("access_token", "id_token"))
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}

    refused = [
        httpx2.get(f"{deployment.tasks.url}/api/tasks", headers=access),
        httpx2.post(f"{other.url}/mcp", json=listing, headers=access),
        httpx2.get(f"{deployment.tasks.url}/api/tasks", headers=identity),
        httpx2.post(deployment.mcp_url, json=listing, headers=identity),
    ]

    detail = {"detail": "Token is for another audience", "status_code": 401}
    assert [response.json() for response in refused] == [detail] * 4
