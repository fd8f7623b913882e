"""Export and import: JSON Lines, all or nothing."""

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL
from starlette.testclient import TestClient

import routes.transfers
import statements
from main import create_app
from tests.actors import bearer, settings_for

FAMILIES = pytest.mark.parametrize("tasks", ["/api/tasks", "/api/ann/tasks"])


def _lines(client: TestClient, tasks: str = "/api/tasks") -> list[dict[str, Any]]:
    response = client.get(f"{tasks}/export")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/jsonl"
    return [json.loads(line) for line in response.text.split("\n")[:-1]]


@FAMILIES
def test_an_export_has_every_task_oldest_first(
    ann: TestClient, bob: TestClient, tasks: str
) -> None:
    for number in range(5):
        ann.post("/api/tasks", json={"title": str(number), "description": "line\nbreak\u2028"})
        bob.post("/api/tasks", json={"title": "b"})

    exported = _lines(ann, tasks)

    assert exported == ann.get("/api/tasks?sort=created_at").json()
    assert bob.get("/api/ann/tasks/export").status_code == 403


def test_an_export_of_nothing_is_empty(ann: TestClient) -> None:
    assert _lines(ann) == []


@FAMILIES
def test_an_export_can_be_imported(ann: TestClient, bob: TestClient, tasks: str) -> None:
    for number, status in enumerate(["pending", "in_progress", "completed"]):
        task = {"title": f"ä{number}", "description": "\U0001f4dd" * number, "status": status}
        bob.post("/api/tasks", json=task)
    exported = bob.get("/api/tasks/export").content

    response = ann.post(f"{tasks}/import", content=exported)

    assert (response.status_code, response.json()) == (201, {"imported": 3})
    kept = ("title", "description", "status")
    assert [[task[name] for name in kept] for task in _lines(ann)] == [
        [task[name] for name in kept] for task in _lines(bob)
    ]
    assert {task["user_id"] for task in _lines(ann)} == {"ann"}
    assert ann.get("/api/tasks?q=Ä1").headers["X-Total-Count"] == "1"


def test_more_tasks_than_one_page_are_exported_and_imported(
    ann: TestClient, bob: TestClient
) -> None:
    rows = statements.EXPORT_PAGE_ROWS
    lines = b"".join(b'{"title": "%d"}\n' % number for number in range(2 * rows + 1))

    assert ann.post("/api/tasks/import", content=lines).json() == {"imported": 2 * rows + 1}
    assert [task["title"] for task in _lines(ann)] == [str(n) for n in range(2 * rows + 1)]
    bob.post("/api/tasks/import", content=lines[: lines.index(b'{"title": "%d"}' % (2 * rows))])
    assert len(_lines(bob)) == 2 * rows


@pytest.mark.parametrize(
    "body",
    [b"", b"\n \n", b'{"title": "x"}', b'{"title": "x"}\r\n\r\n{"title": "y"}\n', b"\n"],
)
def test_blank_lines_and_the_last_line_end_do_not_matter(ann: TestClient, body: bytes) -> None:
    response = ann.post("/api/tasks/import", content=body)

    assert (response.status_code, response.json()) == (201, {"imported": body.count(b"title")})


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b'{"title": ""}', "line 3, title"),
        (b'{"title": "x", "status": "done"}', "line 3, status"),
        (b'{"description": "x"}', "line 3, title"),
        (b'{"title": "\\u0000"}', "line 3, title"),
        (b'{"title": "\\ud800"}', "line 3"),
        (b'{"title": "x"', "line 3"),
        (b'{"title": "\xff"}', "line 3"),
        (b"[]", "line 3"),
        (b"NaN", "line 3"),
        (b"[" * 60_000, "line 3"),
        (b'{"title": "' + b"x" * 70_000 + b'"}', "line 3"),
    ],
)
def test_an_invalid_line_is_422_with_its_number_and_nothing_is_imported(
    ann: TestClient, line: bytes, field: str
) -> None:
    response = ann.post(
        "/api/tasks/import", content=b'{"title": "x"}\n\n' + line + b'\n{"title": "y"}\n'
    )

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert "x" * 9 not in response.text
    assert _lines(ann) == []


BOM = "\ufeff".encode()


@pytest.mark.parametrize(
    "body",
    [
        BOM + b'{"title": "x"}\r\n\r\n{"title": "y"}\r\n',
        BOM + b'\n{"title": "x"}\n',
        b'{"title": "x"}\n' + BOM + b'{"title": "y"}\n',
        BOM,
    ],
)
@pytest.mark.parametrize(
    "content_type", ["application/jsonl", "application/x-www-form-urlencoded", "text/plain"]
)
def test_files_as_saved_by_editors_and_sent_by_curl_are_imported(
    ann: TestClient, body: bytes, content_type: str
) -> None:
    headers = {"Content-Type": content_type}

    response = ann.post("/api/tasks/import", content=body, headers=headers)

    assert (response.status_code, response.json()) == (201, {"imported": body.count(b"title")})
    assert {task["title"] for task in _lines(ann)} <= {"x", "y"}


LINES = b'{"title": "x"}\n{"title": "y"}\n'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'[{"title": "x"}, {"title": "y"}]', {}),
        (b'[\n{"title": "x"},\n{"title": "y"}\n]\n', {}),
        (b'{"title": "x"}{"title": "y"}', {}),  # curl -d removes line breaks
        (b'{"title": "x"}\r{"title": "y"}\r', {}),
        (b'{\n  "title": "x"\n}\n', {}),
        (b'"' + LINES.replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"', {}),
        (b"title=x&status=pending", {"Content-Type": "application/x-www-form-urlencoded"}),
        (b"title,status\nx,pending\n", {"Content-Type": "text/csv"}),
        (b"\x1e" + LINES, {"Content-Type": "application/json-seq"}),
        (LINES.decode().encode("utf-16"), {}),
        (LINES.decode().encode("utf-16-le"), {}),
        (LINES.decode().encode("utf-16-be"), {}),
        (LINES.decode().encode("utf-32"), {}),
        (gzip.compress(LINES, mtime=0), {}),
        (gzip.compress(LINES, mtime=0), {"Content-Encoding": "gzip"}),
        (LINES, {"Content-Encoding": "br"}),
        (b'{"title": "\xe4"}\n', {}),
        (b'{"title": "' + b"x" * 70_000 + b'"}', {}),
        (b'{"title": "x"}' + b" " * 70_000 + b'{"title": "y"}', {}),
    ],
)
def test_a_file_that_is_not_json_lines_is_422_with_the_expected_format(
    ann: TestClient, body: bytes, headers: dict[str, str]
) -> None:
    response = ann.post("/api/tasks/import", content=body, headers=headers)

    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error["field"] == ("Content-Encoding" if "Content-Encoding" in headers else "line 1")
    assert error["message"].endswith(
        ". Send JSON Lines, uncompressed and in UTF-8: one task as a JSON object on each line, "
        "with `curl --data-binary @tasks.jsonl`"
    )
    assert _lines(ann) == []


def test_a_form_with_a_file_is_422_with_the_expected_format(ann: TestClient) -> None:
    response = ann.post("/api/tasks/import", files={"file": ("tasks.jsonl", LINES)})

    assert response.status_code == 422
    assert "curl --data-binary @tasks.jsonl" in response.json()["detail"]


def test_a_line_may_be_as_long_as_a_body(ann: TestClient) -> None:
    line = b'{"title": "x"' + b" " * (2**16 - 14) + b"}"

    accepted = ann.post("/api/tasks/import", content=line)
    refused = ann.post("/api/tasks/import", content=b" " + line)

    assert len(line) == 2**16
    assert accepted.json() == {"imported": 1}
    assert refused.json()["detail"].startswith("line 1: is longer than 65536 bytes. Send JSON ")


def test_an_invalid_line_after_many_valid_ones_rolls_them_back(ann: TestClient) -> None:
    lines = b'{"title": "x"}\n' * 1500

    response = ann.post("/api/tasks/import", content=lines + b"{}\n")

    assert response.json()["errors"] == [{"field": "line 1501, title", "message": "Field required"}]
    assert _lines(ann) == []


def _chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 1024):
        yield b"\n" * 1024


def test_an_import_has_its_own_size_limit(ann: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes.transfers.TransferRoute, "body_max_bytes", 2**20)

    assert ann.post("/api/tasks/import", content=_chunks(2**20)).status_code == 201
    for body in (b"\n" * (2**20 + 1), _chunks(2**20 + 1024)):
        response = ann.post("/api/tasks/import", content=body)
        assert response.status_code == 413
        assert response.json()["detail"] == "The body is larger than 1048576 bytes"


def test_an_import_that_cannot_be_stored_is_503(
    ann: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    reasons: Callable[[], list[str]],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nonexistent"))

    response = ann.post("/api/tasks/import", content=_chunks(2**21))

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.json()["detail"] == "The server cannot store the file; try again"
    assert ["Cannot store the file: [Errno 2]" in reason for reason in reasons()] == [True]


@pytest.fixture
def limited(database_url: URL) -> Iterator[TestClient]:
    """A client for Ann, with a limit of three tasks."""
    app = create_app(settings_for(database_url, tasks_per_user=3))
    with TestClient(app, headers=bearer("ann")) as client:
        yield client


FULL = {"detail": "No more than 3 tasks are allowed; delete some first", "status_code": 409}


def test_a_user_cannot_exceed_the_limit_of_tasks(limited: TestClient) -> None:
    key = {"Idempotency-Key": "k"}
    for headers in (key, {}, {}):
        assert limited.post("/api/tasks", json={"title": "x"}, headers=headers).status_code == 201

    refused = limited.post("/api/tasks", json={"title": "x"})

    assert (refused.status_code, refused.json()) == (409, FULL)
    assert limited.post("/api/tasks", json={"title": "x"}, headers=key).status_code == 200
    assert len(limited.get("/api/tasks").json()) == 3
    other = limited.post("/api/tasks", json={"title": "x"}, headers=bearer("bob"))
    assert other.status_code == 201
    limited.delete(f"/api/tasks/{limited.get('/api/tasks').json()[0]['id']}")
    assert limited.post("/api/tasks", json={"title": "x"}).status_code == 201


def test_an_import_cannot_exceed_the_limit_of_tasks(limited: TestClient) -> None:
    limited.post("/api/tasks", json={"title": "x"})

    refused = limited.post("/api/tasks/import", content=b'{"title": "y"}\n' * 3)

    assert (refused.status_code, refused.json()) == (409, FULL)
    assert len(_lines(limited)) == 1
    assert limited.post("/api/tasks/import", content=b'{"title": "y"}\n' * 2).status_code == 201


def test_concurrent_imports_cannot_exceed_the_limit_of_tasks(database_url: URL) -> None:
    app = create_app(settings_for(database_url, tasks_per_user=300))
    body = b'{"title": "y"}\n' * 201  # two statements
    with TestClient(app, headers=bearer("ann")) as ann:
        with ThreadPoolExecutor(4) as threads:
            responses = threads.map(
                lambda _: ann.post("/api/tasks/import", content=body).status_code, range(4)
            )
            codes = sorted(responses)

        assert codes == [201, 409, 409, 409]
        assert ann.get("/api/tasks?limit=1").headers["X-Total-Count"] == "201"
