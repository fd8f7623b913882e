"""The page without a mouse, and under axe-core, which checks contrast, labels and structure."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import needs_chromium, needs_node
from tests.e2e.frontend.page import (
    ColorScheme,
    add,
    expect_answered,
    expect_tasks,
    import_tasks,
    opened,
    sign_up,
    tasks,
)
from tests.e2e.server import Server

pytestmark = [needs_node, needs_chromium]


def test_tasks_can_be_managed_with_the_keyboard_alone(ann: Page, backend: Server) -> None:
    sign_up(ann, "Ann")
    import_tasks(ann, backend, {"title": "Buy milk"}, {"title": "Call Bob"})
    keys, rows = ann.keyboard, ann.locator(".row")

    keys.press("n")
    expect(ann.get_by_label("New task")).to_be_focused()
    keys.type("Jot neat kanji")  # whose letters are no shortcuts here
    keys.press("Enter")
    expect_tasks(ann, "Jot neat kanji", "Call Bob", "Buy milk")
    keys.press("Escape")

    keys.press("j")
    expect(rows.nth(0)).to_be_focused()
    keys.press("j")
    keys.press("j")
    keys.press("j")
    expect(rows.nth(2)).to_be_focused()
    keys.press("k")
    expect(rows.nth(1)).to_be_focused()
    keys.press("x")
    expect_tasks(ann, "Jot", "Call Bob Completed", "Buy milk")
    expect_answered(ann)
    expect(rows.nth(1)).to_be_focused()
    keys.press("x")
    expect_tasks(ann, "Jot", "Call Bob Pending", "Buy milk")
    expect_answered(ann)

    keys.press("e")
    expect(ann.get_by_label("Title")).to_be_focused()
    keys.type("Call Alice")
    keys.press("Enter")
    expect_tasks(ann, "Jot", "Call Alice", "Buy milk")
    expect_answered(ann)
    keys.press("e")
    expect(ann.get_by_label("Title")).to_be_focused()
    keys.press("Escape")
    expect(ann.get_by_label("Title")).to_have_count(0)

    keys.press("d")
    expect_tasks(ann, "Jot", "Buy milk")
    keys.press("u")
    expect_tasks(ann, "Jot", "Call Alice", "Buy milk")
    expect(rows.nth(1)).to_be_focused()

    keys.press("/")
    expect(ann.get_by_label("Search")).to_be_focused()
    keys.type("milk")
    expect_tasks(ann, "Buy milk")
    keys.press("Escape")
    expect_tasks(ann, "Jot", "Call Alice", "Buy milk")
    keys.press("Escape")
    expect(ann.get_by_label("Search")).not_to_be_focused()


def test_the_shortcuts_are_listed_and_can_be_turned_off(ann: Page) -> None:
    sign_up(ann, "Ann")
    expect(ann.get_by_text("No tasks yet.")).to_be_visible()
    keys, new_task = ann.keyboard, ann.get_by_label("New task")
    keys.press("Escape")  # out of the field that the page begins with

    keys.press("?")
    dialog = ann.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    keys.press("n")
    expect(new_task).not_to_be_focused()
    dialog.get_by_label("Use single-key shortcuts").uncheck()
    keys.press("Escape")
    expect(dialog).to_be_hidden()
    keys.press("n")
    expect(new_task).not_to_be_focused()
    ann.reload()
    expect(ann.get_by_text("No tasks yet.")).to_be_visible()
    keys.press("?")
    expect(dialog).to_be_hidden()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_no_violations(
    browser: Browser,
    site: Server,
    backend: Server,
    frontend: Path,
    color_scheme: ColorScheme,
    width: int,
) -> None:
    axe = (frontend / "node_modules/axe-core/axe.min.js").read_text()
    found: dict[str, list[dict[str, Any]]] = {}

    with opened(browser, site, color_scheme=color_scheme, width=width) as ann:
        ann.add_init_script(axe)
        ann.reload()
        expect(ann.get_by_role("heading", name="Sign in")).to_be_visible()
        found["signed out"] = _violations(ann)
        sign_up(ann, "Ann")
        expect(ann.get_by_text("No tasks yet.")).to_be_visible()
        found["no tasks"] = _violations(ann)
        import_tasks(
            ann,
            backend,
            {"title": "Overdue", "due_date": "2020-01-31", "priority": "high", "tags": ["work"]},
            {"title": "Far", "due_date": "9999-12-31T23:59", "priority": "low"},
            {"title": "Begun", "description": "Half of it", "status": "in_progress"},
            {"title": "Done", "due_date": "2020-01-31", "status": "completed", "tags": ["work"]},
        )
        add(ann, "Today today")
        expect(tasks(ann)).to_have_count(5)
        unfold = ann.get_by_role("button", name="Filters")
        if unfold.is_visible():
            unfold.click()
        ann.get_by_role("group", name="Tag").get_by_label("work").check()
        expect(tasks(ann)).to_have_count(2)
        found["filtered"] = _violations(ann)
        ann.get_by_role("group", name="Tag").get_by_label("Any tag").check()
        expect(tasks(ann)).to_have_count(5)
        ann.get_by_label("New task").fill("Call Bob tomorrow 17:00 !high #home #w")
        tasks(ann).first.hover()
        found["a line that is read"] = _violations(ann)
        ann.get_by_role("button", name="Edit: Overdue").click()
        expect(ann.get_by_label("Title", exact=True)).to_be_visible()
        found["an editor"] = _violations(ann)
        ann.get_by_role("button", name="Cancel").click()
        ann.get_by_role("button", name="Delete: Done").click()
        expect(ann.locator("#toast")).to_be_visible()
        headers = {"Access-Control-Allow-Origin": "*"}
        ann.route("**/api/tasks/**", lambda route: route.fulfill(status=422, headers=headers))
        ann.get_by_role("button", name="Complete: Far").click()
        expect(ann.locator("#banner")).to_be_visible()
        found["a toast and an error"] = _violations(ann)
        ann.get_by_role("button", name="Dismiss").click()
        ann.unroute_all()
        ann.context.set_offline(True)
        ann.get_by_role("button", name="Complete: Far").click()
        expect(tasks(ann).get_by_text("Not yet sent")).to_have_count(1)
        expect(ann.locator("#connection")).to_contain_text("Offline")
        found["offline"] = _violations(ann)
        ann.context.set_offline(False)
        ann.get_by_role("button", name="Keyboard shortcuts").click()
        found["the shortcuts"] = _violations(ann)

    assert found == {state: [] for state in found}


def _violations(page: Page) -> list[dict[str, Any]]:
    expect_answered(page)  # what waits for an answer is dimmed, with less contrast
    result = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    assert len(result["passes"]) > 10
    return [
        {"rule": violation["id"], "at": [node["html"] for node in violation["nodes"]]}
        for violation in result["violations"]
    ]
