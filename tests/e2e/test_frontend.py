"""The page of examples/frontend in Chromium, with Better Auth and with tasks in PostgreSQL."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page, Response, expect
from sqlalchemy import URL, create_engine, text

from tests.e2e.conftest import (
    LIMIT_MILLISECONDS,
    Server,
    free_port,
    needs_chromium,
    needs_node,
)

pytestmark = [needs_node, needs_chromium, pytest.mark.usefixtures("backend")]


@pytest.fixture
def backend_port() -> int:
    return free_port()


@pytest.fixture
def token_seconds() -> int:
    return 900


@pytest.fixture
def site(
    frontend: Path, environment: dict[str, str], backend_port: int, token_seconds: int
) -> Iterator[Server]:
    """The page with Better Auth; its URL is the page's origin."""
    port = free_port()
    variables = {
        "PORT": str(port),
        "BETTER_AUTH_URL": f"http://127.0.0.1:{port}",
        "API_URL": f"http://127.0.0.1:{backend_port}",
        "JWT_EXPIRES_IN_SECONDS": str(token_seconds),
    }
    command = ["node", "node_modules/vite/bin/vite.js", "preview", "--host", "127.0.0.1"]
    server = Server(command, frontend, environment | variables, port)
    try:
        yield server.wait("/api/auth/ok")
    finally:
        server.stop()


@pytest.fixture
def listed_origin(site: Server) -> str:
    return site.url


@pytest.fixture
def start_backend(
    start: Callable[..., Server],
    backend_port: int,
    site: Server,
    listed_origin: str,
    postgresql_url: URL,
) -> Callable[[], Server]:
    """Start the task server, also once more, where the page looks for it."""
    return lambda: start(
        "uv", "run", "main.py", "--port", "{port}",
        port=backend_port,
        BETTER_AUTH_URL=site.url,
        CORS_ORIGINS=listed_origin,
        DATABASE_URL=postgresql_url.render_as_string(hide_password=False),
    ).wait("/ready")  # fmt: skip


@pytest.fixture
def backend(start_backend: Callable[[], Server]) -> Server:
    return start_backend()


@pytest.fixture
def ann(browser: Browser, site: Server) -> Iterator[Page]:
    """The page in Ann's browser, before she signs up."""
    yield from _opened(browser, site)


@pytest.fixture
def bob(browser: Browser, site: Server) -> Iterator[Page]:
    """The page in Bob's browser, before he signs up."""
    yield from _opened(browser, site)


def _opened(browser: Browser, site: Server) -> Iterator[Page]:
    with browser.new_context(base_url=site.url) as context:
        context.set_default_timeout(LIMIT_MILLISECONDS)
        page = context.new_page()
        page.goto("/")
        yield page


def _sign_up(page: Page, name: str) -> None:
    page.get_by_role("button", name="Create an account").click()
    page.get_by_label("Name").fill(name)
    _enter(page, name, "Sign up")


def _enter(page: Page, name: str, button: str) -> None:
    page.get_by_label("Email").fill(f"{name.lower()}@example.com")
    page.get_by_label("Password").fill("correct horse")
    page.get_by_role("button", name=button).click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def _add(page: Page, title: str) -> None:
    page.get_by_label("New task").fill(title)
    page.get_by_role("button", name="Add", exact=True).click()


def _expect_tasks(page: Page, *texts: str) -> None:
    """Wait until the page lists these tasks, in this order, and no other."""
    tasks = page.get_by_role("list", name="Tasks").get_by_role("listitem")
    expect(tasks).to_have_count(len(texts))
    expect(tasks).to_contain_text(texts)


def _stored(database: URL) -> list[tuple[object, ...]]:
    engine = create_engine(database)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT title, description, status FROM task")).all()
    engine.dispose()
    return [tuple(row) for row in rows]


def test_a_user_creates_edits_completes_and_deletes_tasks(ann: Page, postgresql_url: URL) -> None:
    _sign_up(ann, "Ann")
    expect(ann.get_by_text("No tasks yet.")).to_be_visible()

    _add(ann, "Buy milk")
    _expect_tasks(ann, "Buy milk Pending")
    _add(ann, "Call Bob")
    _expect_tasks(ann, "Call Bob Pending", "Buy milk Pending")

    ann.get_by_role("button", name="Edit: Buy milk").click()
    ann.get_by_label("Title").fill("Buy oat milk")
    ann.get_by_label("Description").fill("Two liters")
    ann.get_by_role("button", name="Save").click()
    _expect_tasks(ann, "Call Bob Pending", "Buy oat milk Two liters Pending")

    ann.get_by_role("button", name="Start: Buy oat milk").click()
    _expect_tasks(ann, "Pending", "In progress")
    ann.get_by_role("button", name="Complete: Buy oat milk").click()
    _expect_tasks(ann, "Pending", "Completed")
    ann.get_by_role("group", name="Show").get_by_label("Completed").check()
    _expect_tasks(ann, "Buy oat milk")
    ann.get_by_role("group", name="Show").get_by_label("All").check()
    _expect_tasks(ann, "Call Bob", "Buy oat milk")

    ann.get_by_role("button", name="Delete: Call Bob").click()
    ann.get_by_role("button", name="Really delete: Call Bob").click()
    _expect_tasks(ann, "Buy oat milk Two liters Completed")
    assert _stored(postgresql_url) == [("Buy oat milk", "Two liters", "completed")]


def test_tasks_are_there_again_after_signing_out_and_in(ann: Page) -> None:
    _sign_up(ann, "Ann")
    _add(ann, "Buy milk")
    _expect_tasks(ann, "Buy milk")

    ann.reload()
    _expect_tasks(ann, "Buy milk")

    ann.get_by_role("button", name="Sign out").click()
    expect(ann.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(ann.get_by_text("Buy milk")).to_have_count(0)
    ann.reload()
    expect(ann.get_by_role("heading", name="Sign in")).to_be_visible()

    _enter(ann, "Ann", "Sign in")
    _expect_tasks(ann, "Buy milk")


def test_two_users_see_only_their_own_tasks(ann: Page, bob: Page) -> None:
    _sign_up(ann, "Ann")
    _sign_up(bob, "Bob")
    _add(ann, "Ann's task")
    _expect_tasks(ann, "Ann's task")
    _add(bob, "Bob's task")
    _expect_tasks(bob, "Bob's task")

    ann.reload()

    _expect_tasks(ann, "Ann's task")


@pytest.mark.parametrize("listed_origin", ["http://localhost:3000"])
def test_the_page_of_an_origin_that_is_not_listed_is_refused(
    ann: Page, backend: Server, postgresql_url: URL
) -> None:
    told: list[str] = []
    ann.on("console", lambda message: told.append(message.text))
    _sign_up(ann, "Ann")

    _add(ann, "Buy milk")

    expect(ann.get_by_role("alert")).to_contain_text(
        "Could not add the task. The task server cannot be reached. Reconnecting…"
    )
    assert any("blocked by CORS policy" in message for message in told)
    assert _stored(postgresql_url) == []
    # Nothing else is wrong: outside the browser, her token is good.
    token = ann.request.get("/api/auth/token").json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx2.get(f"{backend.url}/api/tasks", headers=headers).json() == []


NOTE_ALERTS = """
    window.alerts = [];
    new MutationObserver(() => {
        const text = document.querySelector("#banner:not([hidden])")?.textContent;
        if (text) alerts.push(text);
    }).observe(document, { subtree: true, childList: true, attributes: true });
"""


@pytest.mark.parametrize("token_seconds", [3])
@pytest.mark.parametrize(
    ("clock_seconds", "answers"),
    [
        # By the page's clock the token has expired, so it is renewed before it is sent;
        pytest.param(60, [(0, 200), (1, 201), (1, 200)], id="clock ahead"),
        # by this one it has not, so it is renewed because the server refuses it.
        pytest.param(-60, [(0, 200), (0, 401), (1, 201), (1, 200)], id="clock behind"),
    ],
)
def test_an_expired_token_is_renewed_without_the_user_noticing(
    ann: Page, backend: Server, clock_seconds: int, answers: list[tuple[int, int]]
) -> None:
    tokens: dict[str, int] = {}
    answered: list[tuple[int, int]] = []

    def note(response: Response) -> None:
        if response.url.startswith(backend.url):
            token = response.request.headers["authorization"]
            answered.append((tokens.setdefault(token, len(tokens)), response.status))

    ann.add_init_script(NOTE_ALERTS)
    ann.reload()
    ann.on("response", note)
    _sign_up(ann, "Ann")
    expect(ann.get_by_text("No tasks yet.")).to_be_visible()
    (first,) = tokens
    expiry = json.loads(base64.urlsafe_b64decode(first.split(".")[1] + "=="))["exp"]
    ann.wait_for_function("expiry => Date.now() / 1000 > expiry", arg=expiry)
    ann.clock.set_fixed_time(datetime.fromtimestamp(expiry + clock_seconds, UTC))

    _add(ann, "Buy milk")

    _expect_tasks(ann, "Buy milk")
    assert answered == answers
    assert ann.evaluate("alerts") == []


def test_a_stopped_server_is_told_and_recovered_from(
    ann: Page, backend: Server, start_backend: Callable[[], Server]
) -> None:
    _sign_up(ann, "Ann")
    _add(ann, "Buy milk")
    _expect_tasks(ann, "Buy milk")
    backend.stop()

    _add(ann, "Call Bob")
    other_tab = ann.context.new_page()
    other_tab.goto("/")

    unreachable = "The task server cannot be reached. Reconnecting…"
    expect(ann.get_by_role("alert")).to_contain_text(f"Could not add the task. {unreachable}")
    expect(ann.get_by_label("New task")).to_have_value("Call Bob")
    expect(other_tab.get_by_role("alert")).to_contain_text(
        f"Could not load the tasks. {unreachable}"
    )

    start_backend()

    _expect_tasks(other_tab, "Buy milk")
    expect(other_tab.get_by_role("alert")).to_be_hidden()
    expect(ann.get_by_role("alert")).to_be_hidden()
    ann.get_by_role("button", name="Add", exact=True).click()
    _expect_tasks(ann, "Call Bob", "Buy milk")
    expect(ann.get_by_label("New task")).to_have_value("")
