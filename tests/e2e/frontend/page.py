"""What the tests do in the page, and expect of it."""

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import httpx2
from playwright.sync_api import Browser, Locator, Page, Request, Route, expect
from sqlalchemy import URL, create_engine, text

from tests.e2e.conftest import LIMIT_MILLISECONDS
from tests.e2e.server import Server

UNDO_MILLISECONDS = 8000

STORED = text("SELECT title, description, status FROM task WHERE deleted_at IS NULL")

ColorScheme = Literal["light", "dark"]


@contextmanager
def opened(
    browser: Browser,
    site: Server,
    *,
    timezone: str | None = None,
    color_scheme: ColorScheme = "light",
    width: int = 1280,
) -> Iterator[Page]:
    """Open the page in a browser of its own."""
    with browser.new_context(
        base_url=site.url,
        timezone_id=timezone,
        color_scheme=color_scheme,
        viewport={"width": width, "height": 800},
    ) as context:
        context.set_default_timeout(LIMIT_MILLISECONDS)
        page = context.new_page()
        page.goto("/")
        yield page


def sign_up(page: Page, name: str) -> None:
    page.get_by_role("button", name="Create an account").click()
    page.get_by_label("Name").fill(name)
    enter(page, name, "Sign up")


def enter(page: Page, name: str, button: str) -> None:
    fill_in(page, name, button)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def fill_in(page: Page, name: str, button: str) -> None:
    # The tests share Better Auth, so each has users of its own.
    domain = f"{zlib.crc32(os.environ['PYTEST_CURRENT_TEST'].encode())}.example.com"
    page.get_by_label("Email").fill(f"{name.lower()}@{domain}")
    page.get_by_role("main").get_by_label("Password").fill("correct horse")
    page.get_by_role("button", name=button).click()


def add(page: Page, title: str) -> None:
    page.get_by_label("New task").fill(title)
    page.get_by_role("button", name="Add", exact=True).click()


def expect_tasks(page: Page, *texts: str) -> None:
    """Wait until the page lists these tasks, in this order, and no other."""
    expect(tasks(page)).to_have_count(len(texts))
    expect(tasks(page)).to_contain_text(texts)


def expect_answered(page: Page) -> None:
    """Wait until the server has done what the page shows already."""
    expect(page.locator("[aria-busy=true]")).to_have_count(0)


def tasks(page: Page) -> Locator:
    return page.get_by_role("list", name="Tasks").get_by_role("listitem")


def stored(database: URL) -> list[tuple[object, ...]]:
    engine = create_engine(database)
    with engine.connect() as connection:
        rows = connection.execute(STORED).all()
    engine.dispose()
    return [tuple(row) for row in rows]


def client(page: Page, backend: Server) -> httpx2.Client:
    """Give a client with the token of the page's user."""
    token = page.request.get("/api/auth/token").json()["token"]
    return httpx2.Client(base_url=backend.url, headers={"Authorization": f"Bearer {token}"})


def import_tasks(page: Page, backend: Server, *tasks: Mapping[str, object]) -> None:
    """Create the tasks, the last of which is the newest, and show them."""
    lines = "\n".join(map(json.dumps, tasks))
    with client(page, backend) as api:
        api.post("/api/tasks/import", content=lines).raise_for_status()
    page.reload()
    expect(page.locator("#count")).to_contain_text(str(len(tasks)))


def hold(page: Page, method: str) -> Callable[[], Route]:
    """Let the requests on one task with this method wait; what is returned waits for one."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == method:
            held.append(route)
        else:
            route.fallback()

    def wait() -> Route:
        deadline = time.monotonic() + LIMIT_MILLISECONDS / 1000
        while not held:
            assert time.monotonic() < deadline
            page.wait_for_timeout(20)
        return held.pop()

    page.route("**/api/tasks/**", hold)
    return wait


def ignore_changes(page: Page) -> None:
    """Let the page hear of no changes: the test counts its other requests."""
    page.route("**/api/tasks/changes?*", lambda _: None)


def lose_answers(page: Page, method: str) -> list[Request]:
    """Let the requests with this method reach the server, and none of its answers the page."""
    lost: list[Request] = []

    def lose(route: Route) -> None:
        if route.request.method == method:
            route.fetch()
            lost.append(route.request)
            route.abort()
        else:
            route.fallback()

    page.route("**/api/tasks**", lose)
    return lost
