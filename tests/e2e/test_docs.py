"""/docs and /redoc in Chromium, where no other server can be reached."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from routes.docs import SINGLE_TASKS, TAGS, WITH_USER_ID, with_user_id
from tests.actors import SECRET, bearer
from tests.contract.operations import OPENAPI, OPERATIONS
from tests.e2e.conftest import LIMIT_MILLISECONDS, check_out, needs_chromium
from tests.e2e.server import Server
from tests.e2e.swagger_ui import authorize, execute, open_operation

pytestmark = needs_chromium

OPTIONAL_HEADERS = {"if-match", "if-none-match", "idempotency-key"}


@pytest.fixture(scope="module")
def server(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    checkout = check_out(tmp_path_factory.mktemp("docs") / "todo-backend")
    variables = environment | {"BETTER_AUTH_SECRET": SECRET.get_secret_value()}
    server = Server(["uv", "run", "main.py", "--port", "{port}"], checkout, variables)
    try:
        yield server.wait()
    finally:
        server.stop()


@pytest.fixture
def token() -> str:
    return bearer("ann")["Authorization"].removeprefix("Bearer ")


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A page of the server, which reports no error and asks no other server for anything."""
    asked: list[str] = []
    complaints: list[str] = []
    with browser.new_context(base_url=server.url) as context:
        context.set_default_timeout(LIMIT_MILLISECONDS)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        yield page
    assert asked
    assert [url for url in asked if not url.startswith(f"{server.url}/")] == []
    assert [told for told in complaints if told.startswith("error: ")] == []


def test_the_page_has_the_operations_in_the_order_in_which_one_needs_them(page: Page) -> None:
    page.goto("/docs")

    groups = page.locator("h3.opblock-tag")
    expect(groups).to_have_count(len(TAGS))
    assert [group.get_attribute("data-tag") for group in groups.all()] == [
        tag["name"] for tag in TAGS
    ]
    assert page.locator(".opblock-summary-description").all_inner_texts() == [
        "Create a task",
        "List tasks",
        "Read a task",
        "Update a task (PUT)",
        "Update a task (PATCH)",
        "Complete a task",
        "Delete a task",
        "Update many tasks",
        "Delete many tasks",
        "List changes",
        "Export all tasks",
        "Import tasks",
        "List tags",
        "Show who you are",
        "Erase all your data",
        "Check the process",
        "Check the database",
    ]


def test_groups_with_the_user_id_in_the_path_are_collapsed_until_one_is_asked_for(
    page: Page,
) -> None:
    page.goto("/docs")
    collapsed = page.locator('h3[data-is-open="false"]')
    expect(collapsed).to_have_count(3)
    for group in collapsed.all():
        assert str(group.get_attribute("data-tag")).endswith(WITH_USER_ID)

    tag = with_user_id(SINGLE_TASKS)
    page.goto(f"/docs#/{tag}/read_task_of_user")
    page.reload()

    operation = page.locator(f'[id="operations-{tag.replace(" ", "_")}-read_task_of_user"]')
    expect(operation.get_by_role("button", name="Try it out")).to_be_visible()
    expect(page.locator('h3[data-is-open="false"]')).to_have_count(2)


def test_a_list_is_asked_for_with_the_defaults_alone(page: Page, token: str) -> None:
    page.goto("/docs")
    authorize(page, token)
    operation = open_operation(page, SINGLE_TASKS, "list_tasks")

    with page.expect_request("**/api/tasks*") as asked:
        execute(operation)

    assert parse_qsl(urlsplit(asked.value.url).query) == [
        ("sort", "-created_at"),
        ("limit", "50"),
        ("offset", "0"),
        ("total", "true"),
    ]
    assert OPTIONAL_HEADERS.isdisjoint(asked.value.all_headers())


def test_a_task_is_created_and_listed_with_a_token_that_outlives_a_reload(
    page: Page, token: str
) -> None:
    page.goto("/")
    expect(page).to_have_url(f"{page.url.removesuffix('docs')}docs")
    authorize(page, token)

    status, body = execute(open_operation(page, SINGLE_TASKS, "create_task"))
    assert status == "201"
    assert '"title": "Buy milk"' in body

    status, body = execute(open_operation(page, SINGLE_TASKS, "list_tasks"))
    assert status == "200"
    assert '"title": "Buy milk"' in body

    page.reload()
    expect(page.get_by_role("button", name="Authorize")).to_have_class("btn authorize locked")
    status, body = execute(open_operation(page, SINGLE_TASKS, "list_tasks"))
    assert status == "200"
    assert '"title": "Buy milk"' in body


TASKS_FILE: FilePayload = {
    "name": "tasks.jsonl",
    "mimeType": "application/jsonl",
    "buffer": b'{"title": "From a file"}',
}


def test_every_operation_can_be_tried_out_as_it_stands(
    page: Page, server: Server, token: str
) -> None:
    page.goto("/docs")
    authorize(page, token)
    headers = {"Authorization": f"Bearer {token}"}
    # Swagger UI renders everything in the open groups again at each change, so open one at a time.
    open_groups = page.locator('h3[data-is-open="true"]')
    while open_groups.count():
        open_groups.first.get_by_role("button").click()

    for tag in TAGS:
        for documented in _operations_of(tag["name"]):
            task = httpx2.post(
                f"{server.url}/api/tasks", json={"title": "One to work on"}, headers=headers
            ).json()
            operation = open_operation(page, tag["name"], documented["operationId"])
            task_id = operation.locator('[data-param-name="task_id"] input')
            if task_id.count():
                expect(task_id).to_have_value("1")
                task_id.fill(str(task["id"]))

            file = operation.locator('input[type="file"]')
            if file.count():
                file.set_input_files(TASKS_FILE)

            with page.expect_request("**") as asked:
                status, _ = execute(operation)

            expected = "201" if "201" in documented["responses"] else min(documented["responses"])
            assert status == expected, documented["operationId"]
            assert OPTIONAL_HEADERS.isdisjoint(asked.value.all_headers())
            operation.locator(".opblock-summary-control").click()
        open_groups.get_by_role("button").click()


def _operations_of(tag: str) -> list[dict[str, Any]]:
    return [operation.documented for operation in OPERATIONS if tag in operation.documented["tags"]]


def test_redoc_shows_every_operation(page: Page) -> None:
    page.goto("/redoc")

    for methods in OPENAPI["paths"].values():
        for documented in methods.values():
            heading = page.locator(f'[id$="operation/{documented["operationId"]}"] h2')
            expect(heading.first).to_contain_text(documented["summary"])
