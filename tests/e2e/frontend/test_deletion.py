"""Deletions in Chromium: undone, sent when the toast closes, or sent on leaving the page."""

import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Request, expect
from sqlalchemy import URL

from tests.e2e.conftest import LIMIT_MILLISECONDS, needs_chromium, needs_node
from tests.e2e.frontend.page import UNDO_MILLISECONDS, add, expect_tasks, sign_up, stored

pytestmark = [needs_node, needs_chromium]


@pytest.fixture
def ann_with_tasks(ann: Page, postgresql_url: URL) -> Page:  # noqa: ARG001  # an empty one
    """Ann's page with two tasks, and a clock that the test moves."""
    ann.clock.install()
    ann.reload()
    sign_up(ann, "Ann")
    for title in ("Buy milk", "Call Bob"):
        add(ann, title)
        expect(ann.get_by_label("New task")).to_have_value("")
    expect_tasks(ann, "Call Bob", "Buy milk")
    return ann


def _delete(page: Page, title: str) -> None:
    page.get_by_role("button", name=f"Delete: {title}").click()
    expect(page.locator("#toast")).to_have_text(f"Deleted “{title}” Undo")


def _note_deletions(page: Page) -> list[Request]:
    deletions: list[Request] = []
    page.on("request", lambda request: deletions.extend([request] * (request.method == "DELETE")))
    return deletions


def test_an_undone_deletion_is_never_sent(ann_with_tasks: Page, postgresql_url: URL) -> None:
    ann = ann_with_tasks
    deletions = _note_deletions(ann)
    _delete(ann, "Call Bob")
    expect_tasks(ann, "Buy milk")
    expect(ann.locator("#count")).to_have_text("1 task")
    # Another change reloads the list, which still hides the task.
    ann.get_by_role("button", name="Complete: Buy milk").click()
    expect_tasks(ann, "Buy milk Completed")
    # The time stops while the focus is on the toast.
    ann.get_by_role("button", name="Undo").focus()
    ann.clock.run_for(10 * UNDO_MILLISECONDS)

    ann.get_by_role("button", name="Undo").press("Enter")

    expect_tasks(ann, "Call Bob", "Buy milk")
    expect(ann.locator(".row").first).to_be_focused()
    expect(ann.locator("#toast")).to_be_hidden()
    ann.clock.run_for(10 * UNDO_MILLISECONDS)
    ann.reload()
    expect_tasks(ann, "Call Bob", "Buy milk")
    assert deletions == []
    assert len(stored(postgresql_url)) == 2


def test_a_deletion_is_sent_when_its_toast_closes(
    ann_with_tasks: Page, postgresql_url: URL
) -> None:
    ann = ann_with_tasks
    deletions = _note_deletions(ann)
    _delete(ann, "Call Bob")
    ann.clock.run_for(UNDO_MILLISECONDS - 1000)
    expect(ann.locator("#toast")).to_be_visible()
    assert deletions == []

    with ann.expect_response(lambda response: response.request.method == "DELETE"):
        ann.clock.run_for(1000)

    expect(ann.locator("#toast")).to_be_hidden()
    expect_tasks(ann, "Buy milk")
    assert stored(postgresql_url) == [("Buy milk", None, "pending")]


def test_a_second_deletion_sends_the_first_immediately(
    ann_with_tasks: Page, postgresql_url: URL
) -> None:
    ann = ann_with_tasks
    _delete(ann, "Call Bob")

    with ann.expect_response(lambda response: response.request.method == "DELETE"):
        _delete(ann, "Buy milk")

    assert stored(postgresql_url) == [("Buy milk", None, "pending")]
    expect(ann.get_by_text("No tasks yet.")).to_be_visible()
    ann.keyboard.press("Escape")
    ann.get_by_role("button", name="Undo").click()
    expect_tasks(ann, "Buy milk")


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda page: page.goto("about:blank"), id="another page"),
        pytest.param(lambda page: page.reload(), id="reload"),
        pytest.param(lambda page: page.close(run_before_unload=True), id="closed"),
        pytest.param(
            lambda page: page.get_by_role("button", name="Sign out").click(), id="signed out"
        ),
    ],
)
def test_leaving_the_page_sends_a_deletion_immediately(
    ann_with_tasks: Page, postgresql_url: URL, leave: Callable[[Page], object]
) -> None:
    _delete(ann_with_tasks, "Call Bob")
    assert len(stored(postgresql_url)) == 2

    leave(ann_with_tasks)

    deadline = time.monotonic() + LIMIT_MILLISECONDS / 1000
    while len(stored(postgresql_url)) == 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert stored(postgresql_url) == [("Buy milk", None, "pending")]
