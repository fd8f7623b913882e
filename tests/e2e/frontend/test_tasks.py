"""The user's tasks and account in Chromium, with refused changes, conflicts and failures."""

import base64
import json
import socketserver
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from playwright.sync_api import Page, Request, Response, Route, expect
from sqlalchemy import URL

from tests.e2e.conftest import needs_chromium, needs_node
from tests.e2e.frontend.page import (
    UNDO_MILLISECONDS,
    add,
    client,
    enter,
    expect_answered,
    expect_tasks,
    fill_in,
    hold,
    ignore_changes,
    import_tasks,
    lose_answers,
    sign_up,
    stored,
    tasks,
)
from tests.e2e.server import Server

pytestmark = [needs_node, needs_chromium]


def test_a_user_creates_edits_completes_and_deletes_tasks(ann: Page, postgresql_url: URL) -> None:
    ann.clock.install()
    ann.reload()
    sign_up(ann, "Ann")
    expect(ann.get_by_text("No tasks yet.")).to_be_visible()

    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk Pending")
    add(ann, "Call Bob")
    expect_tasks(ann, "Call Bob Pending", "Buy milk Pending")

    ann.get_by_role("button", name="Edit: Buy milk").click()
    ann.get_by_label("Title").fill("Buy oat milk")
    ann.get_by_label("Description").fill("Two liters")
    ann.get_by_role("button", name="Save").click()
    expect_tasks(ann, "Call Bob Pending", "Buy oat milk Two liters Pending")

    ann.get_by_role("button", name="Start: Buy oat milk").click()
    expect_tasks(ann, "Pending", "In progress")
    ann.get_by_role("button", name="Complete: Buy oat milk").click()
    expect_tasks(ann, "Pending", "Completed")
    ann.get_by_role("group", name="Show").get_by_label("Completed").check()
    expect_tasks(ann, "Buy oat milk")
    ann.get_by_role("group", name="Show").get_by_label("All").check()
    expect_tasks(ann, "Call Bob", "Buy oat milk")

    ann.get_by_role("button", name="Delete: Call Bob").click()
    expect_tasks(ann, "Buy oat milk Two liters Completed")
    with ann.expect_response(lambda response: response.request.method == "DELETE"):
        ann.clock.run_for(UNDO_MILLISECONDS)
    assert stored(postgresql_url) == [("Buy oat milk", "Two liters", "completed")]


def test_tasks_are_still_there_after_signing_out_and_in_again(ann: Page) -> None:
    sign_up(ann, "Ann")
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk")

    ann.reload()
    expect_tasks(ann, "Buy milk")

    ann.get_by_role("button", name="Sign out").click()
    expect(ann.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(ann.get_by_text("Buy milk")).to_have_count(0)
    ann.reload()
    expect(ann.get_by_role("heading", name="Sign in")).to_be_visible()

    enter(ann, "Ann", "Sign in")
    expect_tasks(ann, "Buy milk")


def test_two_users_see_only_their_own_tasks(ann: Page, bob: Page) -> None:
    sign_up(ann, "Ann")
    sign_up(bob, "Bob")
    add(ann, "Ann's task")
    expect_tasks(ann, "Ann's task")
    add(bob, "Bob's task")
    expect_tasks(bob, "Bob's task")

    ann.reload()

    expect_tasks(ann, "Ann's task")


def test_tasks_are_searched_and_sorted_and_completed_ones_cleared(
    ann: Page, backend: Server, postgresql_url: URL
) -> None:
    sign_up(ann, "Ann")
    import_tasks(
        ann,
        backend,
        {"title": "ÄPFEL"},
        {"title": "Cake", "description": "with 100% äpfel"},
        {"title": "Bread", "status": "completed"},
    )
    clear = ann.get_by_role("button", name="Clear completed")
    expect_tasks(ann, "Bread", "Cake", "ÄPFEL")

    ann.get_by_label("Search").fill("äpfel")
    expect_tasks(ann, "Cake", "ÄPFEL")
    expect(ann.get_by_role("status")).to_have_text("2 tasks")
    expect(clear).to_be_hidden()
    ann.get_by_label("Search").fill("100% Äpfel")
    expect_tasks(ann, "Cake")
    ann.get_by_label("Search").fill("_")
    expect_tasks(ann)
    expect(ann.get_by_role("status")).to_have_text("No tasks match “_”.")
    expect(ann.get_by_label("Search")).to_have_value("_")

    # A new task is always shown, even if it does not match the search.
    add(ann, "Dates")
    expect_tasks(ann, "Dates", "Bread", "Cake", "ÄPFEL")
    expect(ann.get_by_label("Search")).to_have_value("")

    ann.get_by_label("Sort").select_option("Title")
    expect_tasks(ann, "Bread", "Cake", "Dates", "ÄPFEL")
    ann.get_by_label("Sort").select_option("Oldest")
    expect_tasks(ann, "ÄPFEL", "Cake", "Bread", "Dates")
    ann.get_by_role("button", name="Complete: Cake").click()
    expect(tasks(ann).filter(has_text="Completed")).to_have_count(2)
    ann.get_by_label("Sort").select_option("Last changed")
    expect_tasks(ann, "Cake", "Dates", "Bread", "ÄPFEL")

    clear.click()
    asking = ann.get_by_role("button", name="Delete completed?")
    asking.press("Escape")
    expect(asking).to_have_count(0)
    assert len(stored(postgresql_url)) == 4
    clear.click()
    asking.click()
    expect_tasks(ann, "Dates", "ÄPFEL")
    expect(clear).to_be_hidden()
    assert sorted(stored(postgresql_url)) == [
        ("Dates", None, "pending"),
        ("ÄPFEL", None, "pending"),
    ]


def test_a_search_waits_for_a_pause_in_typing_and_cancels_the_previous_search(
    ann: Page, backend: Server
) -> None:
    searches: list[str] = []
    ended: list[tuple[list[str], str | None]] = []

    def search_of(request: Request) -> list[str]:
        return parse_qs(urlsplit(request.url).query).get("q", [])

    ann.on("request", lambda request: searches.extend(search_of(request)))
    ignore_changes(ann)
    ann.clock.install()
    ann.reload()
    sign_up(ann, "Ann")
    import_tasks(ann, backend, {"title": "Buy milk"}, {"title": "Buy bread"})
    ann.route("**/api/tasks?*q=br*", lambda _: None)  # which never answers
    # A minute further, where nothing moves the page's clock but the test.
    ann.clock.pause_at(datetime.fromtimestamp(ann.evaluate("Date.now()") / 1000 + 60, UTC))

    ann.on("requestfailed", lambda request: ended.append((search_of(request), request.failure)))
    ann.get_by_label("Search").press_sequentially("br")
    with ann.expect_request("**/api/tasks?*q=br*"):
        ann.clock.run_for(250)
    ann.get_by_label("Search").fill("milk")
    with ann.expect_event("requestfailed"):
        ann.clock.run_for(250)

    expect_tasks(ann, "Buy milk")
    assert searches == ["br", "milk"]
    assert ended == [(["br"], "net::ERR_ABORTED")]
    expect(ann.get_by_role("alert")).to_have_count(0)
    expect(ann.get_by_label("Search")).to_have_value("milk")


def test_show_more_repeats_no_task_while_tasks_are_created_and_deleted(
    ann: Page, backend: Server
) -> None:
    titles = [f"Task {number:02}" for number in range(61)]
    pages: list[dict[str, list[str]]] = []
    ignore_changes(ann)
    sign_up(ann, "Ann")
    import_tasks(ann, backend, *({"title": title} for title in titles))
    ann.get_by_label("Sort").select_option("Title")
    expect_tasks(ann, *titles[:20])
    expect(ann.locator("#count")).to_have_text("20 of 61")
    ann.on("request", lambda request: pages.append(parse_qs(urlsplit(request.url).query)))

    with client(ann, backend) as elsewhere:
        first = elsewhere.get("/api/tasks?sort=title&limit=1").json()[0]
        elsewhere.delete(f"/api/tasks/{first['id']}").raise_for_status()
        ann.get_by_role("button", name="Show more").click()
        expect(ann.locator("#count")).to_have_text("40 of 60")
        elsewhere.post("/api/tasks", json={"title": "Task 00"}).raise_for_status()
        ann.get_by_role("button", name="Show more").click()
        expect(ann.locator("#count")).to_have_text("60 of 61")
    ann.get_by_role("button", name="Show more").press("Enter")

    expect_tasks(ann, *titles)
    expect(ann.locator("#count")).to_have_text("61 tasks")
    expect(ann.get_by_role("button", name="Show more")).to_be_hidden()
    expect(ann.get_by_role("button", name="Complete: Task 60")).to_be_focused()
    assert [page["limit"] for page in pages] == [["20"], ["20"], ["20"]]
    assert all("cursor" in page and "offset" not in page for page in pages)

    # All of them are still shown after a change reloads the list.
    ann.get_by_role("button", name="Complete: Task 60").click()
    expect(tasks(ann).last).to_contain_text("Completed")
    expect_tasks(ann, *titles)


REFUSAL = {"detail": "Not today", "status_code": 422}
ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}


def test_a_change_is_shown_immediately_and_reverted_if_the_server_refuses_it(
    ann: Page, backend: Server, postgresql_url: URL
) -> None:
    ann.clock.install()
    ann.reload()
    sign_up(ann, "Ann")
    import_tasks(ann, backend, {"title": "Buy milk"}, {"title": "Call Bob"})
    change, deletion = hold(ann, "PATCH"), hold(ann, "DELETE")
    alert = ann.locator("#banner")

    ann.get_by_role("button", name="Complete: Buy milk").click()
    expect_tasks(ann, "Call Bob Pending", "Buy milk Completed")
    _refuse(change())
    expect(alert).to_contain_text("Could not complete the task. Not today.")
    expect_tasks(ann, "Call Bob Pending", "Buy milk Pending")

    ann.get_by_role("button", name="Delete: Buy milk").click()
    expect_tasks(ann, "Call Bob")
    ann.clock.run_for(UNDO_MILLISECONDS)
    _refuse(deletion())
    expect(alert).to_contain_text("Could not delete the task. Not today.")
    expect_tasks(ann, "Call Bob", "Buy milk")

    ann.get_by_role("button", name="Edit: Call Bob").click()
    ann.get_by_label("Title").fill("Call Alice")
    ann.get_by_role("button", name="Save").click()
    expect_tasks(ann, "Call Alice Pending", "Buy milk")
    _refuse(change())
    expect(alert).to_contain_text("Could not save the task. Not today.")
    # What was typed is still there, to be saved again.
    expect(ann.get_by_label("Title")).to_have_value("Call Alice")
    expect(ann.get_by_label("Title")).to_be_focused()
    assert len(stored(postgresql_url)) == 2
    ann.get_by_role("button", name="Save").click()
    expect_tasks(ann, "Call Alice Pending", "Buy milk")
    change().continue_()
    expect_answered(ann)
    expect(alert).to_be_hidden()
    ann.get_by_role("button", name="Start: Call Alice").click()
    expect_tasks(ann, "Call Alice In progress", "Buy milk")
    expect(ann.get_by_role("button", name="Complete: Call Alice")).to_be_focused()
    change().abort()
    # A server that cannot be reached has not refused it, so it is kept and sent again.
    expect_tasks(ann, "Call Alice In progress Not yet sent", "Buy milk Pending")
    change().continue_()
    expect(tasks(ann).get_by_text("Not yet sent")).to_have_count(0)
    expect_tasks(ann, "Call Alice In progress", "Buy milk Pending")
    expect(alert).to_be_hidden()
    assert sorted(stored(postgresql_url)) == [
        ("Buy milk", None, "pending"),
        ("Call Alice", None, "in_progress"),
    ]


def _refuse(request: Route) -> None:
    request.fulfill(status=422, headers=ANY_ORIGIN, json=REFUSAL)


def test_saving_an_outdated_edit_asks_which_version_to_keep(
    ann: Page, anns_phone: Page, postgresql_url: URL
) -> None:
    sign_up(ann, "Ann")
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk")
    enter(anns_phone, "Ann", "Sign in")
    conflict = "This task was changed on another device"

    _edit(ann, "Buy milk", title="Buy oat milk")
    _edit(anns_phone, "Buy milk", title="Buy soy milk")
    anns_phone.get_by_role("button", name="Save").click()
    expect_tasks(anns_phone, "Buy soy milk")
    ann.get_by_role("button", name="Save").click()
    expect(tasks(ann).get_by_role("alert")).to_contain_text(conflict)
    expect_tasks(ann, "Buy soy milk Pending")
    expect(ann.get_by_label("Title")).to_have_value("Buy oat milk")
    ann.get_by_role("button", name="Discard mine").click()
    expect(ann.get_by_label("Title")).to_have_count(0)
    expect_tasks(ann, "Buy soy milk Pending")
    expect(ann.get_by_role("button", name="Edit: Buy soy milk")).to_be_focused()

    _edit(ann, "Buy soy milk", title="Buy rice milk")
    _edit(anns_phone, "Buy soy milk", title="Buy nut milk")
    anns_phone.get_by_label("Description").fill("Two liters")
    anns_phone.get_by_role("button", name="Save").click()
    expect_tasks(anns_phone, "Buy nut milk Two liters")
    ann.get_by_role("button", name="Save").click()
    expect_tasks(ann, "Buy nut milk Two liters Pending")
    # Fields that she has not edited take the other version's values.
    expect(ann.get_by_label("Description")).to_have_value("Two liters")
    anns_phone.get_by_role("button", name="Complete: Buy nut milk").click()
    expect_tasks(anns_phone, "Completed")
    ann.get_by_role("button", name="Keep mine").click()
    # The task has changed again, so she is asked again.
    expect_tasks(ann, "Buy nut milk Two liters Completed")
    ann.get_by_role("button", name="Keep mine").click()
    expect_tasks(ann, "Buy rice milk Two liters Completed")
    expect(ann.get_by_label("Title")).to_have_count(0)
    expect_answered(ann)
    assert stored(postgresql_url) == [("Buy rice milk", "Two liters", "completed")]


def _edit(page: Page, task: str, *, title: str) -> None:
    page.get_by_role("button", name=f"Edit: {task}").click()
    page.get_by_label("Title").fill(title)


def test_an_edit_whose_response_was_lost_does_not_conflict_with_itself(
    ann: Page, postgresql_url: URL
) -> None:
    sign_up(ann, "Ann")
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk")
    _edit(ann, "Buy milk", title="Buy oat milk")
    lose_answers(ann, "PATCH")

    with ann.expect_event("requestfailed", lambda request: request.method == "PATCH"):
        ann.get_by_role("button", name="Save").click()
    expect(tasks(ann).get_by_text("Not yet sent")).to_have_count(0)

    expect(ann.get_by_label("Title")).to_have_count(0)
    expect_tasks(ann, "Buy oat milk")
    expect_answered(ann)
    expect(ann.locator("#banner")).to_be_hidden()
    assert stored(postgresql_url) == [("Buy oat milk", None, "pending")]


def test_the_browser_blocks_a_page_whose_origin_is_not_in_cors_origins(
    ann: Page, site: Server, start: Callable[..., Server], postgresql_url: URL
) -> None:
    backend = start(
        "uv", "run", "main.py", "--port", "{port}",
        BETTER_AUTH_URL=site.url,
        CORS_ORIGINS="http://localhost:3000",
        DATABASE_URL=postgresql_url.render_as_string(hide_password=False),
    ).wait("/ready")  # fmt: skip
    ann.route("**/config.json", lambda route: route.fulfill(json={"apiUrl": backend.url}))
    ann.reload()
    expect(ann.get_by_role("heading", name="Sign in")).to_be_visible()
    ann.unroute_all()  # Playwright answers preflights itself as long as a route is set
    told: list[str] = []
    ann.on("console", lambda message: told.append(message.text))
    sign_up(ann, "Ann")

    add(ann, "Buy milk")

    expect(ann.get_by_role("alert")).to_contain_text(
        "Could not load your tasks. Cannot reach the task server. Reconnecting…"
    )
    expect_tasks(ann, "Buy milk Pending Not yet sent")
    assert any("blocked by CORS policy" in message for message in told)
    assert stored(postgresql_url) == []
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


@pytest.mark.parametrize("deployment", [3], ids=["a token of 3 s"], indirect=True)
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
        if response.url.startswith(f"{backend.url}/api/tasks"):
            token = response.request.headers["authorization"]
            answered.append((tokens.setdefault(token, len(tokens)), response.status))

    ignore_changes(ann)
    ann.add_init_script(NOTE_ALERTS)
    ann.reload()
    ann.on("response", note)
    sign_up(ann, "Ann")
    expect(ann.get_by_text("No tasks yet.")).to_be_visible()
    (first,) = tokens
    expiry = json.loads(base64.urlsafe_b64decode(first.split(".")[1] + "=="))["exp"]
    ann.wait_for_function("expiry => Date.now() / 1000 > expiry", arg=expiry)
    ann.clock.set_fixed_time(datetime.fromtimestamp(expiry + clock_seconds, UTC))

    add(ann, "Buy milk")

    expect_tasks(ann, "Buy milk")
    assert answered == answers
    assert ann.evaluate("alerts") == []


def test_the_page_reports_a_stopped_server_and_recovers_when_it_restarts(
    ann: Page, backend: Server, postgresql_url: URL
) -> None:
    sign_up(ann, "Ann")
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk")
    backend.stop()

    add(ann, "Call Bob")
    other_tab = ann.context.new_page()
    other_tab.goto("/")

    expect_tasks(ann, "Call Bob Pending Not yet sent", "Buy milk")
    expect(ann.get_by_label("New task")).to_have_value("")
    # Both tabs know what is not sent, and only one of them sends it.
    expect_tasks(other_tab, "Call Bob Pending Not yet sent")
    expect(other_tab.get_by_role("alert")).to_contain_text(
        "Could not load your tasks. Cannot reach the task server. Reconnecting…"
    )

    backend.start().wait("/ready")

    for tab in (ann, other_tab):
        tab.evaluate("window.dispatchEvent(new Event('focus'))")
        expect_tasks(tab, "Call Bob Pending", "Buy milk")
        expect(tasks(tab).get_by_text("Not yet sent")).to_have_count(0)
        expect(tab.get_by_role("alert")).to_be_hidden()
    assert len(stored(postgresql_url)) == 2


class _BreaksOff(socketserver.StreamRequestHandler):
    """Answers with less than it announces."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Access-Control-Allow-Origin: *\r\nContent-Length: 100\r\n\r\n["
        )


def test_an_incomplete_response_is_reported_and_requested_again(ann: Page) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _BreaksOff) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        broken = f"http://127.0.0.1:{server.server_address[1]}/"
        ann.route("**/api/tasks?**", lambda route: route.continue_(url=broken))
        sign_up(ann, "Ann")
        expect(ann.get_by_role("alert")).to_contain_text(
            "Could not load your tasks. Cannot reach the task server. Reconnecting…"
        )

        ann.unroute_all()
        expect(ann.get_by_text("No tasks yet.")).to_be_visible()
        expect(ann.get_by_role("alert")).to_be_hidden()
        server.shutdown()


def test_deleting_an_account_erases_its_tasks_first(
    ann: Page,
    bob: Page,
    backend: Server,
    postgresql_url: URL,
) -> None:
    sign_up(ann, "Ann")
    add(ann, "Buy milk")
    expect_tasks(ann, "Buy milk")
    sign_up(bob, "Bob")
    add(bob, "Call Ann")
    expect_tasks(bob, "Call Ann")
    dialog = ann.get_by_role("dialog", name="Delete your account?")

    def delete(password: str) -> None:
        dialog.get_by_label("Password").fill(password)
        dialog.get_by_role("button", name="Delete account").click()

    ann.get_by_role("button", name="Delete account").click()
    delete("wrong donkey")
    expect(dialog.get_by_role("alert")).to_have_text("Invalid password")
    backend.stop()
    delete("correct horse")
    expect(dialog.get_by_role("alert")).to_have_text(
        "Could not delete your account. Try again later."
    )
    backend.start().wait("/ready")
    assert len(stored(postgresql_url)) == 2
    delete("correct horse")

    expect(ann.get_by_text("Your account and all your tasks were deleted.")).to_be_visible()
    assert stored(postgresql_url) == [("Call Ann", None, "pending")]
    fill_in(ann, "Ann", "Sign in")
    expect(ann.get_by_text("Invalid email or password")).to_be_visible()
