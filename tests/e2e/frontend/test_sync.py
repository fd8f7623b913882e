"""Two browsers of one user, and a browser without a network: what they show, send and request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Dialog, Locator, Page, Request, Route, expect
from sqlalchemy import URL

from tests.e2e.conftest import needs_chromium, needs_node
from tests.e2e.frontend.page import (
    add,
    client,
    enter,
    expect_answered,
    expect_tasks,
    import_tasks,
    lose_answers,
    sign_up,
    stored,
    tasks,
)
from tests.e2e.server import Server

pytestmark = [needs_node, needs_chromium]

SEEN_WITHIN_MILLISECONDS = 5000
UNSENT = "Not yet sent"
CHANGED_ELSEWHERE = "This task was changed on another device"


def test_changes_in_one_browser_appear_in_the_other(ann: Page, anns_phone: Page) -> None:
    sign_up(ann, "Ann")
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk")
    enter(anns_phone, "Ann", "Sign in")
    expect_tasks(anns_phone, "Buy milk")
    on_phone = tasks(anns_phone)

    def expect_on_phone(*texts: str) -> None:
        expect(on_phone).to_have_count(len(texts), timeout=SEEN_WITHIN_MILLISECONDS)
        expect(on_phone).to_contain_text(texts, timeout=SEEN_WITHIN_MILLISECONDS)

    add(ann, "Call Bob")
    expect_on_phone("Call Bob Pending", "Buy milk Pending")

    _edit(ann, "Buy milk", "Buy oat milk")
    ann.get_by_role("button", name="Save").click()
    expect_on_phone("Call Bob Pending", "Buy oat milk Pending")

    # With a filter, what matches by now appears and what does not disappears.
    anns_phone.get_by_role("group", name="Show").get_by_label("Completed").check()
    expect_on_phone()
    ann.get_by_role("button", name="Complete: Call Bob").click()
    expect_on_phone("Call Bob Completed")
    ann.get_by_role("button", name="Reopen: Call Bob").click()
    expect_on_phone()
    anns_phone.get_by_role("group", name="Show").get_by_label("All").check()
    expect_on_phone("Call Bob Pending", "Buy oat milk Pending")

    ann.get_by_role("button", name="Delete: Call Bob").click()
    ann.reload()  # which sends the deletion at once
    expect_on_phone("Buy oat milk")


def test_offline_changes_are_kept_and_sent_when_back_online(
    ann: Page, backend: Server, postgresql_url: URL
) -> None:
    sign_up(ann, "Ann")
    import_tasks(ann, backend, {"title": "Buy milk"}, {"title": "Call Bob"}, {"title": "Rest"})
    expect_tasks(ann, "Rest", "Call Bob", "Buy milk")
    connection = ann.locator("#connection")

    ann.context.set_offline(True)
    expect(connection).to_have_text("Offline")
    add(ann, "Bake bread #home")
    expect_tasks(ann, f"Bake bread Pending home {UNSENT}", "Rest", "Call Bob", "Buy milk")
    expect(ann.get_by_label("New task")).to_have_value("")
    _edit(ann, "Bake bread", "Bake rye bread")
    ann.get_by_role("button", name="Save").click()
    expect(tasks(ann).first).to_contain_text(f"Bake rye bread Pending home {UNSENT}")
    _edit(ann, "Buy milk", "Buy oat milk")
    ann.get_by_role("button", name="Save").click()
    ann.get_by_role("button", name="Complete: Buy oat milk").click()
    ann.get_by_role("button", name="Delete: Rest").click()
    expect_tasks(ann, "Bake rye bread", "Call Bob", f"Buy oat milk Completed {UNSENT}")
    ann.get_by_role("button", name="Delete: Call Bob").click()  # which ends the offer to undo
    ann.get_by_role("button", name="Undo").click()
    expect(connection).to_have_text("Offline · 5 changes not yet sent")
    assert len(stored(postgresql_url)) == 3

    ann.context.set_offline(False)

    expect(connection).to_have_text("")
    expect(tasks(ann).get_by_text(UNSENT)).to_have_count(0)
    expect_tasks(ann, "Bake rye bread Pending home", "Call Bob", "Buy oat milk Completed")
    expect(ann.locator("#banner")).to_be_hidden()
    assert sorted(stored(postgresql_url)) == [
        ("Bake rye bread", None, "pending"),
        ("Buy oat milk", None, "completed"),
        ("Call Bob", None, "pending"),
    ]


def test_unsent_changes_survive_a_reload(ann: Page, postgresql_url: URL) -> None:
    sign_up(ann, "Ann")
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk")
    expect_answered(ann)

    with _unreachable(ann):
        add(ann, "Call Bob")
        expect_tasks(ann, f"Call Bob Pending {UNSENT}", "Buy milk")
        ann.get_by_role("button", name="Complete: Buy milk").click()
        expect_tasks(ann, "Call Bob", f"Buy milk Completed {UNSENT}")
        ann.reload()
        expect(tasks(ann)).to_have_count(2)
        expect(tasks(ann).get_by_text(UNSENT)).to_have_count(2)
        expect(ann.get_by_role("alert")).to_contain_text("Could not load your tasks.")
        questions: list[str] = []

        def dismiss(dialog: Dialog) -> None:
            questions.append(dialog.message)
            dialog.dismiss()

        ann.once("dialog", dismiss)
        ann.get_by_role("button", name="Sign out").click()
        expect(tasks(ann)).to_have_count(2)
        assert questions == ["You have 2 changes that are not yet sent. Sign out and discard them?"]

    ann.evaluate("window.dispatchEvent(new Event('focus'))")
    expect_tasks(ann, "Call Bob Pending", "Buy milk Completed")
    expect(tasks(ann).get_by_text(UNSENT)).to_have_count(0)
    expect(ann.get_by_role("alert")).to_be_hidden()
    assert sorted(stored(postgresql_url)) == [
        ("Buy milk", None, "completed"),
        ("Call Bob", None, "pending"),
    ]


def test_signing_out_discards_unsent_changes_after_asking(ann: Page, postgresql_url: URL) -> None:
    sign_up(ann, "Ann")
    expect(ann.get_by_text("No tasks yet.")).to_be_visible()
    with _unreachable(ann):
        add(ann, "Buy milk")
        expect_tasks(ann, f"Buy milk Pending {UNSENT}")
        ann.once("dialog", lambda dialog: dialog.accept())
        ann.get_by_role("button", name="Sign out").click()
        expect(ann.get_by_role("heading", name="Sign in")).to_be_visible()

    enter(ann, "Ann", "Sign in")

    expect(ann.get_by_text("No tasks yet.")).to_be_visible()
    assert stored(postgresql_url) == []


def test_a_task_changed_both_offline_and_elsewhere_is_a_conflict(
    ann: Page, backend: Server, postgresql_url: URL
) -> None:
    sign_up(ann, "Ann")
    import_tasks(ann, backend, {"title": "Buy milk"}, {"title": "Call Bob"})
    expect_tasks(ann, "Call Bob", "Buy milk")
    ann.context.set_offline(True)
    _edit(ann, "Buy milk", "Buy oat milk")
    ann.get_by_role("button", name="Save").click()
    _edit(ann, "Call Bob", "Call Alice")
    ann.get_by_role("button", name="Save").click()
    with client(ann, backend) as elsewhere:
        for task in elsewhere.get("/api/tasks").json():
            url, changed = f"/api/tasks/{task['id']}", {"title": task["title"] + ", soon"}
            elsewhere.patch(url, json=changed).raise_for_status()
        theirs = stored(postgresql_url)
        ann.get_by_role("button", name="Sign out").focus()  # where nothing is written

        ann.context.set_offline(False)

        alerts = tasks(ann).get_by_role("alert")
        expect(alerts.filter(has_text=CHANGED_ELSEWHERE)).to_have_count(2)
        expect(ann.get_by_role("button", name="Sign out")).to_be_focused()
        expect(ann.locator("#banner")).to_contain_text(
            "“Call Bob, soon” was changed on another device. Choose which version to keep."
        )
        assert stored(postgresql_url) == theirs

        bob, milk = (_row(ann, f"{title}, soon") for title in ("Call Bob", "Buy milk"))
        expect(bob.get_by_label("Title")).to_have_value("Call Alice")
        bob.get_by_role("button", name="Discard mine").click()
        expect(bob.get_by_label("Title")).to_have_count(0)
        assert stored(postgresql_url) == theirs
        expect(milk.get_by_label("Title")).to_have_value("Buy oat milk")
        milk.get_by_role("button", name="Keep mine").click()
        expect(ann.get_by_text("Buy oat milk", exact=True)).to_be_visible()
        expect_answered(ann)

    expect(ann.locator("#connection")).to_have_text("")
    expect_tasks(ann, "Call Bob, soon", "Buy oat milk")
    assert sorted(stored(postgresql_url)) == [
        ("Buy oat milk", None, "pending"),
        ("Call Bob, soon", None, "pending"),
    ]


def test_an_editor_that_was_opened_offline_saves_into_a_conflict(
    ann: Page, backend: Server, postgresql_url: URL
) -> None:
    sign_up(ann, "Ann")
    import_tasks(ann, backend, {"title": "Buy milk"})
    expect_tasks(ann, "Buy milk")
    ann.context.set_offline(True)
    _edit(ann, "Buy milk", "Buy oat milk")
    with client(ann, backend) as elsewhere:
        (task,) = elsewhere.get("/api/tasks").json()
        url = f"/api/tasks/{task['id']}"
        elsewhere.patch(url, json={"title": "Buy soy milk"}).raise_for_status()
    ann.context.set_offline(False)
    row = _row(ann, "Buy soy milk")
    expect(row.get_by_role("alert")).to_contain_text("was changed on another device")

    ann.get_by_role("button", name="Save").click()

    expect(row.get_by_role("alert")).to_contain_text("Choose which one to keep")
    row.get_by_role("button", name="Keep mine").click()
    expect_tasks(ann, "Buy oat milk")
    assert [title for title, *_ in stored(postgresql_url)] == ["Buy oat milk"]


def test_a_task_that_was_changed_elsewhere_survives_an_offline_deletion(
    ann: Page, backend: Server, postgresql_url: URL
) -> None:
    sign_up(ann, "Ann")
    import_tasks(ann, backend, {"title": "Buy milk"}, {"title": "Rest"})
    ann.context.set_offline(True)
    ann.get_by_role("button", name="Delete: Rest").click()
    ann.get_by_role("button", name="Delete: Buy milk").click()  # which ends the offer to undo
    ann.get_by_role("button", name="Undo").click()
    expect_tasks(ann, "Buy milk")
    with client(ann, backend) as elsewhere:
        rest = elsewhere.get("/api/tasks?q=Rest").json()[0]
        elsewhere.patch(f"/api/tasks/{rest['id']}", json={"title": "Rest well"}).raise_for_status()

    ann.context.set_offline(False)

    expect(ann.locator("#banner")).to_contain_text(
        "Could not delete “Rest”. It was changed on another device. "
        "Delete it again if you no longer need it."
    )
    expect_tasks(ann, "Rest well", "Buy milk")
    assert len(stored(postgresql_url)) == 2


def test_an_offline_change_that_the_server_refuses_is_reported_and_dropped(
    ann: Page, backend: Server, postgresql_url: URL
) -> None:
    sign_up(ann, "Ann")
    import_tasks(ann, backend, {"title": "Buy milk"}, {"title": "Rest"})
    ann.context.set_offline(True)
    ann.get_by_role("button", name="Complete: Rest").click()
    expect_tasks(ann, f"Rest Completed {UNSENT}", "Buy milk")
    with client(ann, backend) as elsewhere:
        rest = elsewhere.get("/api/tasks?q=Rest").json()[0]
        elsewhere.delete(f"/api/tasks/{rest['id']}").raise_for_status()

    ann.context.set_offline(False)

    expect(ann.locator("#banner")).to_contain_text("Could not update “Rest”. Task not found.")
    expect_tasks(ann, "Buy milk Pending")
    expect(ann.locator("#connection")).to_have_text("")
    assert stored(postgresql_url) == [("Buy milk", None, "pending")]


def test_changes_elsewhere_do_not_disturb_an_open_editor(ann: Page, backend: Server) -> None:
    sign_up(ann, "Ann")
    import_tasks(ann, backend, {"title": "Buy milk"}, {"title": "Call Bob"}, {"title": "Rest"})
    ann.get_by_label("Sort").select_option("Last changed")
    expect_tasks(ann, "Rest", "Call Bob", "Buy milk")
    ids = {}
    title = ann.get_by_label("Title")
    with client(ann, backend) as elsewhere:
        for task in elsewhere.get("/api/tasks").json():
            ids[task["title"]] = f"/api/tasks/{task['id']}"
        _edit(ann, "Call Bob", "Call Ali")
        expect(title).to_be_focused()
        ann.evaluate("document.querySelector('[name=title]').setSelectionRange(2, 2)")

        elsewhere.patch(ids["Buy milk"], json={"title": "Buy oat milk"}).raise_for_status()
        expect_tasks(ann, "Buy oat milk", "Rest", "Call Bob")
        elsewhere.delete(ids["Rest"]).raise_for_status()
        expect_tasks(ann, "Buy oat milk", "Call Bob")
        expect(title).to_be_focused()
        expect(title).to_have_value("Call Ali")
        assert ann.evaluate("document.activeElement.selectionStart") == 2
        expect(tasks(ann).get_by_role("alert")).to_have_text("")

        elsewhere.patch(ids["Call Bob"], json={"title": "Call Carl"}).raise_for_status()
        expect(tasks(ann).get_by_role("alert")).to_contain_text(CHANGED_ELSEWHERE)
        expect_tasks(ann, "Call Carl", "Buy oat milk")
        expect(title).to_be_focused()
        expect(title).to_have_value("Call Ali")

        elsewhere.delete(ids["Call Bob"]).raise_for_status()
        expect(tasks(ann).get_by_role("alert")).to_contain_text(
            "This task was deleted on another device"
        )
        expect(title).to_have_value("Call Ali")
        ann.get_by_role("button", name="Save").click()
        expect(ann.locator("#banner")).to_contain_text("Could not save the task. Task not found.")
        ann.get_by_role("button", name="Cancel").click()
        expect_tasks(ann, "Buy oat milk")


def test_an_idle_page_requests_only_changes_and_a_hidden_page_nothing(
    ann: Page, backend: Server
) -> None:
    sign_up(ann, "Ann")
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk")
    # The first poll after the last change may still load the list.
    for _ in range(2):
        ann.wait_for_event("response", lambda response: "/changes?" in response.url)
    expect_answered(ann)
    requests: list[Request] = []
    ann.on("request", lambda request: requests.append(request))  # noqa: PLW0108  # it needs a function

    ann.wait_for_timeout(10_000)

    paths = {request.url.split("?")[0] for request in requests if request.method != "OPTIONS"}
    assert paths == {f"{backend.url}/api/tasks/changes"}
    assert 2 <= len(requests) <= 5

    _set_hidden(ann, "true")
    expect_answered(ann)
    requests.clear()
    ann.wait_for_timeout(7000)
    assert requests == []

    with ann.expect_request("**/api/tasks/changes?*", timeout=1000):
        _set_hidden(ann, "false")


def test_a_new_task_whose_response_is_lost_is_stored_once(ann: Page, postgresql_url: URL) -> None:
    sign_up(ann, "Ann")
    expect(ann.get_by_text("No tasks yet.")).to_be_visible()
    lost = lose_answers(ann, "POST")

    add(ann, "Buy milk")
    expect(tasks(ann).filter(has_text=UNSENT)).to_have_count(1)
    ann.reload()
    expect(tasks(ann).filter(has_text=UNSENT)).to_have_count(1)
    ann.unroute_all()

    expect(tasks(ann).get_by_text(UNSENT)).to_have_count(0)
    expect_tasks(ann, "Buy milk Pending")
    assert len({request.headers["idempotency-key"] for request in lost}) == 1
    assert stored(postgresql_url) == [("Buy milk", None, "pending")]

    # The same words again are another task.
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk", "Buy milk")


def test_the_page_starts_over_if_its_sync_token_is_too_old(ann: Page, backend: Server) -> None:
    sign_up(ann, "Ann")
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk")
    asked: list[str] = []
    ann.on("request", lambda request: asked.append(request.url))
    gone = {"detail": "The token is too old", "status_code": 410}
    any_origin = {"Access-Control-Allow-Origin": "*"}

    def refuse_once(route: Route) -> None:
        route.fulfill(status=410, headers=any_origin, json=gone)
        ann.unroute_all(behavior="wait")

    ann.route("**/api/tasks/changes?*since=*", refuse_once)
    with ann.expect_request(lambda request: request.url.endswith("/changes?limit=500")):
        pass
    with client(ann, backend) as elsewhere:
        elsewhere.post("/api/tasks", json={"title": "Call Bob"}).raise_for_status()

    expect_tasks(ann, "Call Bob", "Buy milk")
    expect(ann.get_by_role("alert")).to_be_hidden()


def test_the_page_waits_for_retry_after_of_an_overloaded_server(ann: Page, backend: Server) -> None:
    sign_up(ann, "Ann")
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk")
    asked: list[float] = []

    def refuse(route: Route) -> None:
        asked.append(time.monotonic())
        headers = {
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": "Retry-After",
            "Retry-After": "8",
        }
        route.fulfill(status=503, headers=headers, json={"detail": "Busy", "status_code": 503})

    ann.route("**/api/tasks/changes*", refuse)
    expect(ann.locator("#connection")).to_have_text("Offline")
    ann.evaluate("window.dispatchEvent(new Event('focus'))")
    with ann.expect_request(f"{backend.url}/api/tasks/changes*"):
        pass
    expect(ann.locator("#connection")).to_have_text("Offline")

    assert len(asked) == 2
    assert asked[1] - asked[0] > 7


def _edit(page: Page, task: str, title: str) -> None:
    page.get_by_role("button", name=f"Edit: {task}", exact=True).click()
    page.get_by_label("Title").last.fill(title)


def _row(page: Page, title: str) -> Locator:
    return tasks(page).filter(has=page.get_by_text(title, exact=True))


@contextmanager
def _unreachable(page: Page) -> Iterator[None]:
    """Let the task server be out of reach, while the page and Better Auth are not."""
    page.route("**/api/tasks**", lambda route: route.abort())
    page.route("**/api/tasks/**", lambda route: route.abort())
    page.route("**/api/tags**", lambda route: route.abort())
    yield
    page.unroute_all()


def _set_hidden(page: Page, hidden: str) -> None:
    page.evaluate(
        f"Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
