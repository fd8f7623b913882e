"""Due dates, priorities and tags in Chromium: written in one line, shown in words, filtered."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import needs_chromium, needs_node
from tests.e2e.frontend.page import (
    add,
    client,
    expect_answered,
    expect_tasks,
    import_tasks,
    opened,
    sign_up,
    tasks,
)
from tests.e2e.server import Server

pytestmark = [needs_node, needs_chromium]

# A Thursday, at noon where the browsers of these tests are unless they say otherwise.
NOW = datetime(2026, 12, 24, 12, tzinfo=UTC)
RED = "rgb(192, 38, 38)"


def _planned(page: Page, backend: Server) -> list[Mapping[str, object]]:
    """Return the stored tasks with what these tests are about, the newest first."""
    with client(page, backend) as api:
        listed = api.get("/api/tasks").raise_for_status().json()
    return [
        {name: task[name] for name in ("title", "due_date", "priority", "tags")} for task in listed
    ]


def _task(
    title: str, due_date: str | None = None, priority: str = "medium", tags: tuple[str, ...] = ()
) -> dict[str, object]:
    return {"title": title, "due_date": due_date, "priority": priority, "tags": list(tags)}


def test_one_line_adds_a_task_with_due_date_tag_and_priority(ann: Page, backend: Server) -> None:
    ann.clock.set_fixed_time(NOW)
    sign_up(ann, "Ann")
    preview = ann.locator("#preview")
    expect(preview).to_have_text("Try: Call Bob tomorrow 17:00 #work !high")

    ann.get_by_label("New task").fill("Call Bob tomorrow 17:00 #work !high")
    expect(preview.locator("> *")).to_have_text(["Call Bob", "Tomorrow 5:00 PM", "high", "work"])
    ann.get_by_role("button", name="Add", exact=True).click()

    expect_tasks(ann, "Call Bob Pending Tomorrow 5:00 PM High work")
    expect(ann.get_by_label("New task")).to_have_value("")
    assert _planned(ann, backend) == [_task("Call Bob", "2026-12-25T17:00", "high", ("work",))]

    # Pressing a recognized part keeps it in the title.
    ann.get_by_label("New task").fill("Read Tomorrow #sci-fi")
    ann.get_by_role("button", name="Tomorrow: keep in the title").click()
    expect(preview.locator("> *")).to_have_text(["Read Tomorrow", "sci-fi"])
    ann.get_by_role("button", name="Add", exact=True).click()
    expect_tasks(ann, "Read Tomorrow", "Call Bob")
    assert _planned(ann, backend)[0] == _task("Read Tomorrow", tags=("sci-fi",))

    # The user's own tags are suggested, and the calendar writes a day into the line.
    ann.get_by_label("New task").fill("Report #w")
    preview.get_by_role("button", name="#work").click()
    expect(ann.get_by_label("New task")).to_have_value("Report #work ")
    ann.locator("#picked").fill("2027-01-08")
    expect(ann.get_by_label("New task")).to_have_value("Report #work 2027-01-08")
    ann.get_by_label("New task").press("Enter")
    expect_tasks(ann, "Report Pending Jan 8, 2027 work", "Read Tomorrow", "Call Bob")
    assert _planned(ann, backend)[0] == _task("Report", "2027-01-08", tags=("work",))


# What a line is read as on Thursday, 24 December 2026, at 12:00.
READINGS: list[tuple[str, list[str]]] = [
    ("Buy milk", []),
    ("Buy milk today", ["Buy milk", "Today"]),
    ("Buy milk TOMORROW", ["Buy milk", "Tomorrow"]),
    ("Meet on Friday at 9:30", ["Meet", "Tomorrow 9:30 AM"]),
    ("Meet thursday", ["Meet", "Dec 31"]),
    ("Plan next week", ["Plan", "Monday"]),
    ("Pay in 3 days", ["Pay", "Sunday"]),
    ("Pay in 2 weeks", ["Pay", "Jan 7, 2027"]),
    ("Pay by 2026-12-31", ["Pay", "Dec 31"]),
    ("Pay 2026-02-30", []),
    ("Fly Dec 26", ["Fly", "Saturday"]),
    ("Fly 23rd december", ["Fly", "Dec 23, 2027"]),
    ("Fly 31 november", []),
    ("Call at 5pm", ["Call", "Today 5:00 PM"]),
    ("Call 12am", ["Call", "Tomorrow 12:00 AM"]),
    ("Call 11:59", ["Call", "Tomorrow 11:59 AM"]),
    ("Call 25:00", []),
    ("Fix #42", []),
    ("Fix it #bug #Bug #ui", ["Fix it", "bug", "Bug", "ui"]),
    ("!low Sleep #a", ["Sleep", "Low", "a"]),
    ("Sleep !lower", []),
    ("tomorrow #work", []),
    ("Call  Bob   today   17:00", ["Call Bob", "Today 5:00 PM"]),
]


def test_a_line_is_read_as_title_due_date_priority_and_tags(ann: Page) -> None:
    ann.clock.set_fixed_time(NOW)
    sign_up(ann, "Ann")
    read = {}

    for line, _ in READINGS:
        ann.get_by_label("New task").fill(line)
        read[line] = ann.locator("#preview > *").all_inner_texts()

    assert read == dict(READINGS)


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        # UTC+14, where it is 25 December already,
        (
            "Pacific/Kiritimati",
            ["Overdue: Dec 23", "Overdue: Yesterday", "Today", "Tomorrow 8:00 AM"],
        ),
        # and UTC-11, where it is still 23 December.
        ("Pacific/Pago_Pago", ["Today", "Tomorrow", "Friday", "Saturday 8:00 AM"]),
    ],
)
def test_the_users_time_zone_decides_what_is_overdue(
    browser: Browser, site: Server, backend: Server, zone: str, words: list[str]
) -> None:
    with opened(browser, site, timezone=zone) as ann:
        ann.clock.set_fixed_time(NOW.replace(hour=10, minute=30))
        sign_up(ann, "Ann")
        days = ("2026-12-23", "2026-12-24", "2026-12-25", "2026-12-26T08:00")
        import_tasks(ann, backend, *(_task(day, day) for day in days))
        ann.get_by_label("Sort").select_option("Due date")
        expect_tasks(ann, *days)

        dates = ann.locator(".row .due [data-part=due]")
        expect(dates).to_have_text(words)
        for date, text in zip(dates.all(), words, strict=True):
            if text.startswith("Overdue"):
                expect(date).to_have_css("color", RED)
            else:
                expect(date).not_to_have_css("color", RED)
        overdue = [day for day, text in zip(days, words, strict=True) if text.startswith("Overdue")]
        ann.get_by_role("radio", name="Overdue").check()
        expect_tasks(ann, *overdue)


def test_a_task_becomes_overdue_while_the_page_is_open(ann: Page, backend: Server) -> None:
    ann.clock.install(time=NOW.replace(hour=23, minute=50))
    ann.reload()
    sign_up(ann, "Ann")
    import_tasks(ann, backend, _task("Buy milk", "2026-12-24"), _task("Call Bob", "2026-12-25"))
    ann.get_by_role("group", name="Due").get_by_label("Today").check()
    expect_tasks(ann, "Buy milk Pending Today")

    ann.clock.fast_forward("15:00")

    expect_tasks(ann, "Call Bob Pending Today")
    ann.get_by_role("group", name="Due").get_by_label("Any time").check()
    expect_tasks(ann, "Call Bob Pending Today", "Buy milk Pending Overdue: Yesterday")


def test_due_date_priority_and_tags_are_edited_in_place(ann: Page, backend: Server) -> None:
    ann.clock.set_fixed_time(NOW)
    sign_up(ann, "Ann")
    import_tasks(ann, backend, _task("Call Bob", "2026-12-24", "high", ("work",)), _task("Rest"))

    ann.get_by_role("button", name="Change the due date of Call Bob: Today").click()
    expect(ann.get_by_label("Due date", exact=True)).to_be_focused()
    ann.get_by_label("Due date", exact=True).fill("2026-12-25")
    ann.get_by_label("Time", exact=True).fill("08:15")
    ann.get_by_role("combobox", name="Priority").select_option("Low")
    ann.get_by_label("Tags").fill("friends")
    ann.get_by_label("Tags").press("Enter")
    ann.get_by_role("button", name="Remove the tag work").click()
    ann.get_by_label("Tags").fill("at home")
    ann.get_by_role("button", name="Save").click()
    expect_tasks(ann, "Rest", "Call Bob Pending Tomorrow 8:15 AM Low friends")
    expect_answered(ann)
    assert _planned(ann, backend)[1] == _task(
        "Call Bob", "2026-12-25T08:15", "low", ("friends", "at home")
    )

    # The editor suggests the user's own tags.
    ann.get_by_role("button", name="Edit: Rest").click()
    expect(ann.locator("#known-tags option")).to_have_count(2)
    known = ann.locator("#known-tags option").evaluate_all("all => all.map(({ value }) => value)")
    assert sorted(known) == ["at home", "friends"]
    ann.get_by_label("Time", exact=True).fill("18:00")
    expect(ann.get_by_label("Due date", exact=True)).to_have_value("2026-12-24")
    ann.get_by_role("button", name="Cancel").click()

    ann.get_by_role("button", name="Edit: Call Bob").click()
    ann.get_by_label("Due date", exact=True).fill("")
    ann.get_by_role("button", name="Save").click()
    expect(ann.get_by_role("button", name="Change the due date of Call Bob")).to_be_hidden()
    expect_answered(ann)
    assert _planned(ann, backend)[1] == _task("Call Bob", None, "low", ("friends", "at home"))


def test_tasks_are_filtered_by_due_date_priority_and_tag(ann: Page, backend: Server) -> None:
    ann.clock.set_fixed_time(NOW)
    sign_up(ann, "Ann")
    import_tasks(
        ann,
        backend,
        _task("late", "2026-12-23T23:59", "high", ("Work",)),
        {**_task("done", "2026-12-23"), "status": "completed"},
        _task("today", "2026-12-24", "low", ("home",)),
        _task("tonight", "2026-12-24T23:59", tags=("work",)),
        _task("tomorrow", "2026-12-25", "high"),
        _task("some day", tags=("work", "home")),
    )

    def choose(group: str, label: str, *titles: str) -> None:
        ann.get_by_role("group", name=group).get_by_label(label, exact=True).check()
        expect_tasks(ann, *titles)

    choose("Due", "Today", "tonight", "today")
    choose("Due", "Overdue", "late")
    choose("Due", "No date", "some day")
    choose("Due", "Any time", "some day", "tomorrow", "tonight", "today", "done", "late")
    choose("Priority", "High", "tomorrow", "late")
    choose("Priority", "Low", "today")
    choose("Priority", "Any", "some day", "tomorrow", "tonight", "today", "done", "late")
    ann.get_by_role("button", name="Show tasks tagged home").first.click()
    expect_tasks(ann, "some day", "today")
    choose("Due", "Today", "today")
    choose("Priority", "High")
    expect(ann.locator("#notice")).to_have_text("No tasks match these filters.")
    expect(ann.get_by_role("button", name="Clear completed")).to_be_hidden()

    # A new task is always shown: a filter that would hide it is removed, others stay.
    add(ann, "new !high #home")
    expect(tasks(ann)).to_have_count(7)
    choose("Priority", "High", "new", "tomorrow", "late")
    add(ann, "newer !high")
    expect_tasks(ann, "newer", "new", "tomorrow", "late")
    ann.get_by_label("Sort").select_option("Due date")
    expect_tasks(ann, "late", "tomorrow", "new", "newer")
    choose(
        "Priority",
        "Any",
        "done",
        "late",
        "today",
        "tonight",
        "tomorrow",
        "some day",
        "new",
        "newer",
    )
    ann.get_by_label("Sort").select_option("Priority")
    expect(tasks(ann).last).to_contain_text("today")
