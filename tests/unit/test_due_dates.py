"""Valid due dates and tags."""

import pytest
from pydantic import TypeAdapter, ValidationError

from models import DueDate, TaskCreate
from routes.tasks import digest_of

DUE_DATE: TypeAdapter[str] = TypeAdapter(DueDate)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31",
        "2024-02-29",
        "2026-01-31T00:00",
        "2026-01-31T23:59",
        "0001-01-01",
        "9999-12-31",
    ],
)
def test_a_date_with_or_without_a_time_is_a_due_date(text: str) -> None:
    assert DUE_DATE.validate_python(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "none",
        "2026-02-30",
        "2026-02-29",
        "2026-13-01",
        "2026-00-10",
        "0000-01-01",
        "2026-1-31",
        "20260131",
        "2026-W05-6",
        "2026-031",
        "+2026-01-31",
        " 2026-01-31",
        "2026-01-31 ",
        "2026-01-31\n",
        "2026-01-31T",
        "2026-01-31T24:00",
        "2026-01-31T23:60",
        "2026-01-31T9:00",
        "2026-01-31t09:00",
        "2026-01-31 09:00",
        "2026-01-31T09:00:00",
        "2026-01-31T09:00\n",
        "２０２６-01-31",
        "٢٠٢٦-01-31",
    ],
)
def test_anything_else_is_not_a_due_date(text: str) -> None:
    with pytest.raises(ValidationError, match="must be a day that exists"):
        DUE_DATE.validate_python(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T09:00Z",
        "2026-01-31T09:00:00.000Z",
        "2026-01-31T09:00+01:00",
        "2026-01-31T09:00-0800",
        "2026-01-31T09:00+01",
        "2026-01-31 09:00z",
        "2026-01-31Z",
        "2026-01-31+01:00",
    ],
)
def test_a_utc_offset_is_refused_with_a_specific_message(text: str) -> None:
    with pytest.raises(ValidationError, match="must be local time, without a time zone or offset"):
        DUE_DATE.validate_python(text)


def test_tags_are_trimmed_and_the_first_spelling_is_kept() -> None:
    tags = [" Work ", "work", "WORK", "strasse", "Straße", "a b", "é", "e\u0301"]

    assert TaskCreate(title="x", tags=tags).tags == ["Work", "strasse", "a b", "é"]


@pytest.mark.parametrize(
    "tags",
    [None, "work", [None], [1], [""], [" "], ["x" * 51], ["a\nb"], ["\0"], ["\u200b"], ["x"] * 21],
)
def test_invalid_tags_are_refused(tags: object) -> None:
    with pytest.raises(ValidationError):
        TaskCreate.model_validate({"title": "x", "tags": tags})


def test_the_digest_of_a_task_without_the_later_fields_is_unchanged() -> None:
    task = TaskCreate(title="Buy milk", priority="medium", tags=[], due_date=None)

    # echo -n '{"title":"Buy milk","description":null,"status":"pending"}' | sha256sum
    assert digest_of(task) == "a7a4a7fcdc56542302b30ab2c9e0728de4a9e93c6cb6c9c8027d698dce2959f3"
    assert digest_of(task.model_copy(update={"tags": ["a"]})) != digest_of(task)
