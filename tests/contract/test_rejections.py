"""Invalid input gets a 4xx that names the problem, on both databases, and changes nothing."""

import gzip
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.contract.operations import PROTECTED, Operation, name_of

WRITES = pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/tasks"), ("PUT", "/api/tasks/1"), ("PATCH", "/api/ann/tasks/1")],
)
JSON = {"Content-Type": "application/json"}


def _assert_refused(response: Any, status_code: int) -> None:  # noqa: ANN401  # a response of httpx2 or of ASGIClient
    assert response.status_code == status_code
    body = response.json()
    assert body["status_code"] == status_code
    assert isinstance(body["detail"], str)
    assert set(body) == {"detail", "status_code"} | ({"errors"} if status_code == 422 else set())


@WRITES
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("title", " \t\u2003\u3000"),
        ("title", "a" * 201),
        ("title", 7),
        ("title", True),
        ("title", ["x"]),
        ("title", {"x": 1}),
        ("title", "a\0b"),
        ("description", "a" * 2001),
        ("description", 7),
        ("description", "\0"),
        *(("title", f"a{control}b") for control in "\x1b\t\n\r\x07\x7f\x85\x9b\u2028\u2029"),
        *(("description", f"a{control}b") for control in "\x1b\x07\x08\x7f\x9b\x1f"),
        ("status", ""),
        ("status", "done"),
        ("status", "PENDING"),
        ("status", "IN_PROGRESS"),
        ("status", 0),
        ("status", None),
        ("title", None),
    ],
)
def test_an_invalid_field_is_422_and_named(
    ann: TestClient, method: str, path: str, field: str, value: object
) -> None:
    response = ann.request(method, path, json={"title": "x"} | {field: value})

    _assert_refused(response, 422)
    assert [error["field"] for error in response.json()["errors"]] == [field]


@WRITES
@pytest.mark.parametrize(
    ("body", "status_code"),
    [
        (b"", 422),
        (b"{", 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"title"', 422),
        (b"1", 422),
        (b"NaN", 422),
        (b'{"title": NaN}', 422),
        (b'{"title": Infinity}', 422),
        (b'{"title": 1e999}', 422),
        (b'{"title": "\\ud800"}', 422),
        (b'{"title": "x", "description": "\\udfff"}', 422),
        (b'{"title": "x", "status": "\\ud800"}', 422),
        (b'{"title": "x",}', 422),
        (b"{'title': 'x'}", 422),
        (b'{"title": "\xff"}', 400),
        (b"[" * 50_000, 400),
        (b'{"":' * 16_000, 400),
        (b'{"title": ' + b"1" * 5000 + b"}", 400),
    ],
)
def test_a_body_that_is_not_a_json_object_is_refused(
    ann: TestClient, method: str, path: str, body: bytes, status_code: int
) -> None:
    _assert_refused(ann.request(method, path, content=body, headers=JSON), status_code)


def test_invalid_json_is_refused_with_the_position_of_the_error(ann: TestClient) -> None:
    response = ann.post("/api/tasks", content=b'{"title": "x",}', headers=JSON)

    _assert_refused(response, 422)
    (error,) = response.json()["errors"]
    assert error["field"] == "body"
    assert error["message"].startswith("Not valid JSON at character 1")


@WRITES
@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application", "\xff"]
)
def test_a_body_of_another_type_is_422_with_the_expected_type(
    ann: TestClient, method: str, path: str, content_type: str | None
) -> None:
    headers = [] if content_type is None else [(b"Content-Type", content_type.encode("latin-1"))]

    response = ann.request(method, path, content=b'{"title": "x"}', headers=headers)

    _assert_refused(response, 422)
    assert response.json()["errors"] == [
        {"field": "body", "message": "Send a JSON object, with Content-Type: application/json"}
    ]


@WRITES
@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_body_is_422_with_the_expected_format(
    ann: TestClient, method: str, path: str, encoding: str
) -> None:
    headers = JSON | {"Content-Encoding": encoding}

    response = ann.request(method, path, content=gzip.compress(b'{"title": "x"}'), headers=headers)

    _assert_refused(response, 422)
    message = "is not supported. Send a JSON object, with Content-Type: application/json"
    assert response.json()["errors"] == [{"field": "Content-Encoding", "message": message}]


@WRITES
@pytest.mark.parametrize(
    "body", [gzip.compress(b"{}", mtime=0), b'{"title": "\xe4"}', b"[" * 50_000, b"\xff\xfe{\0}"]
)
def test_a_body_that_cannot_be_decoded_is_400_with_the_expected_format(
    ann: TestClient, method: str, path: str, body: bytes
) -> None:
    response = ann.request(method, path, content=body, headers=JSON)

    _assert_refused(response, 400)
    assert response.json()["detail"] == (
        "The body cannot be read as JSON in UTF-8. "
        "Send a JSON object, with Content-Type: application/json"
    )


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/ld+json"])
def test_json_may_begin_with_a_byte_order_mark(ann: TestClient, content_type: str) -> None:
    body = "\ufeff".encode() + b'{"title": ""}'

    response = ann.post("/api/tasks", content=body, headers={"Content-Type": content_type})

    _assert_refused(response, 422)
    assert [error["field"] for error in response.json()["errors"]] == ["title"]


def _chunks(size: int) -> Iterator[bytes]:
    yield b'{"title": "'
    for _ in range(size // 1024):
        yield b"x" * 1024
    yield b'"}'


@WRITES
def test_a_body_over_64_kib_is_413_with_and_without_content_length(
    ann: TestClient, method: str, path: str
) -> None:
    announced = ann.request(method, path, content=b"".join(_chunks(2**16)), headers=JSON)
    chunked = ann.request(method, path, content=_chunks(2**20), headers=JSON)

    for response in (announced, chunked):
        _assert_refused(response, 413)
        assert response.json()["detail"] == "The body is larger than 65536 bytes"


def test_a_body_of_64_kib_is_read(ann: TestClient) -> None:
    body = b'{"title": "' + b"x" * (2**16 - 13) + b'"}'
    assert len(body) == 2**16

    _assert_refused(ann.post("/api/tasks", content=body, headers=JSON), 422)


def test_an_invalid_content_length_does_not_bypass_the_limit(ann: TestClient) -> None:
    headers = JSON | {"Content-Length": "9" * 5000}

    response = ann.post("/api/tasks", content=b"x" * (2**16 + 1), headers=headers)

    _assert_refused(response, 413)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "task_id",
    [
        "0",
        "-1",
        "x",
        "1.0",
        "1e3",
        "1_000",
        "+5",
        "05",
        " 5",
        "%D9%A5",
        "%00",
        "null",
        "0x1",
        "tasks",
        str(2**63),
        str(2**64),
        "9" * 5000,
        "-" + "9" * 30,
    ],
)
def test_an_invalid_id_is_422(ann: TestClient, method: str, task_id: str) -> None:
    response = ann.request(method, f"/api/tasks/{task_id}", json={})

    _assert_refused(response, 422)
    assert [error["field"] for error in response.json()["errors"]] == ["task_id"]


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("task_id", [2**31, 2**53, 2**63 - 1])
def test_the_largest_ids_are_not_found(ann: TestClient, method: str, task_id: int) -> None:
    _assert_refused(ann.request(method, f"/api/tasks/{task_id}", json={}), 404)


def test_a_query_parameter_named_body_is_not_taken_for_the_body(ann: TestClient) -> None:
    response = ann.get("/api/tasks?body=1")

    _assert_refused(response, 422)
    assert response.json()["detail"] == "body: is not a query parameter of this operation"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            ("limit", bad)
            for bad in ["0", "101", "-1", "x", "", "1.0", "1_0", "+1", "01", "9" * 5000]
        ),
        *(("offset", bad) for bad in ["-1", "x", "", "1e3", str(2**63), "9" * 5000]),
        *(("status", bad) for bad in ["", "done", "Pending", "pending,completed", "%00", "%ff"]),
    ],
)
def test_an_invalid_query_parameter_is_422_and_named(
    ann: TestClient, field: str, value: str
) -> None:
    response = ann.get(f"/api/tasks?{field}={value}")

    _assert_refused(response, 422)
    assert [error["field"] for error in response.json()["errors"]] == [field]


def _encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "ä",
        "%00",
        "%ff",
        "=",
        _encoded("{}"),
        _encoded("[" * 5000),
        _encoded('{"sort":"-created_at","backward":false,"value":"a","id":1}'),
        _encoded('{"sort":"-created_at","backward":false,"value":1e300,"id":1}'),
        _encoded('{"sort":"-created_at","backward":false,"value":9223372036854775807,"id":1}'),
        _encoded('{"sort":"-created_at","backward":false,"value":1,"id":9223372036854775808}'),
        _encoded('{"sort":"-created_at","backward":false,"value":1,"id":-1}'),
        _encoded('{"sort":"-created_at","backward":2,"value":1,"id":1}'),
        _encoded('{"sort":"title","backward":false,"value":"a","id":1}'),
        _encoded('{"sort":"-created_at","backward":false,"value":NaN,"id":1}'),
    ],
)
def test_an_invalid_cursor_is_422(ann: TestClient, cursor: str) -> None:
    response = ann.get(f"/api/tasks?cursor={cursor}")

    _assert_refused(response, 422)
    assert [error["field"] for error in response.json()["errors"]] == ["cursor"]


def test_an_invalid_sort_is_named_whatever_the_cursor(ann: TestClient) -> None:
    cursor = _encoded('{"sort":"title","backward":false,"value":"a","id":1}')

    response = ann.get(f"/api/tasks?sort=size&cursor={cursor}")

    _assert_refused(response, 422)
    assert [error["field"] for error in response.json()["errors"]] == ["sort"]


@pytest.mark.parametrize("value", ['"\\u0000"', '"\\ud800"', "5"])
def test_an_invalid_cursor_of_a_sort_by_title_is_422(ann: TestClient, value: str) -> None:
    cursor = _encoded('{"sort":"title","backward":false,"value":' + value + ',"id":1}')

    response = ann.get(f"/api/tasks?sort=title&cursor={cursor}")

    _assert_refused(response, 422)
    assert [error["field"] for error in response.json()["errors"]] == ["cursor"]


@pytest.mark.parametrize("key", ["", " ", "a b", "ä", "a" * 256])
def test_an_invalid_idempotency_key_is_422_and_named(ann: TestClient, key: str) -> None:
    response = ann.post(
        "/api/tasks", json={"title": "x"}, headers=[(b"Idempotency-Key", key.encode("latin-1"))]
    )

    _assert_refused(response, 422)
    assert [error["field"] for error in response.json()["errors"]] == ["idempotency-key"]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "query"),
        ("?limit=5", "limit"),
        ("?status=", "status"),
        ("?status=completed&id=", "id"),
        ("?status=completed;q=milk", "status"),
        ("?status=done", "status"),
        ("?id=0", "id"),
        ("?id=x", "id"),
        ("?id=05", "id"),
        (f"?id={2**63}", "id"),
        ("?" + "&".join(f"id={number}" for number in range(1, 502)), "id"),
    ],
)
def test_a_bulk_operation_without_a_valid_filter_is_422(
    ann: TestClient, method: str, query: str, field: str
) -> None:
    response = ann.request(method, f"/api/tasks{query}", json={"title": "new"})

    _assert_refused(response, 422)
    assert {error["field"] for error in response.json()["errors"]} == {field}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("id[]=5", "id[]"),
        ("id%5B0%5D=5", "id[0]"),
        ("Status=completed", "Status"),
        ("statuses=completed", "statuses"),
        ("status%20=completed", "status "),
        ("due_befor=2026-01-31", "due_befor"),
        ("completed", "completed"),
        ("=completed", "query"),
        ("user_id=ann", "user_id"),
        ("task_id=1", "task_id"),
        ("idempotency-key=k", "idempotency-key"),
        ("%00%ff", "\0\ufffd"),
    ],
)
@pytest.mark.parametrize("operation", PROTECTED, ids=name_of)
def test_an_unknown_query_parameter_is_422_and_named(
    ann: TestClient, operation: Operation, query: str, field: str
) -> None:
    path = f"{operation.path}{'&' if '?' in operation.path else '?'}{query}"

    response = ann.request(operation.method, path, json={"title": "x"})

    _assert_refused(response, 422)
    message = "is not a query parameter of this operation"
    assert response.json()["errors"] == [{"field": field, "message": message}]


def test_an_operation_without_filters_refuses_filters(ann: TestClient) -> None:
    for method, path in [
        ("DELETE", "/api/tasks/1"),
        ("PATCH", "/api/tasks/1/complete"),
        ("GET", "/api/ann/tasks/export"),
        ("POST", "/api/tasks/import"),
        ("DELETE", "/api/me"),
    ]:
        response = ann.request(method, f"{path}?status=completed&id=5")
        _assert_refused(response, 422)
        assert [error["field"] for error in response.json()["errors"]] == ["status", "id"]


@pytest.mark.parametrize("name", ["limit", "offset", "q", "sort", "cursor", "total"])
def test_a_repeated_parameter_that_is_not_a_list_is_422(ann: TestClient, name: str) -> None:
    response = ann.get(f"/api/tasks?{name}=1&status=pending&status=completed&{name}=1")

    _assert_refused(response, 422)
    message = "must be given only once"
    assert response.json()["errors"] == [{"field": name, "message": message}]


def test_the_token_is_checked_before_the_query(anonymous: TestClient) -> None:
    _assert_refused(anonymous.get("/api/tasks?x=1"), 401)


@pytest.mark.parametrize(
    "query", ["&".join(f"x{n}=" for n in range(5000)), "x" * 60_000, "status=x&" * 6000]
)
def test_many_errors_and_long_names_do_not_make_the_response_long(
    ann: TestClient, query: str
) -> None:
    response = ann.get(f"/api/tasks?{query}")

    _assert_refused(response, 422)
    assert len(response.content) < 5000


@pytest.mark.parametrize(
    ("method", "suffix"), [("PUT", ""), ("PATCH", "/complete"), ("DELETE", "")]
)
@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "1",
        '"1',
        '1"',
        "'1'",
        '""1""',
        "*, *",
        '*, "1"',
        '"1" x',
        '"1" "2" 3',
        "W/1",
        'W"1"',
        ",",
        '"\x7f"',
    ],
)
def test_a_malformed_precondition_is_422_and_named(
    ann: TestClient, method: str, suffix: str, name: str, value: str
) -> None:
    response = ann.request(method, f"/api/tasks/1{suffix}", json={}, headers={name: value})

    _assert_refused(response, 422)
    assert [error["field"] for error in response.json()["errors"]] == [name]


@pytest.mark.parametrize("value", ["s3cret", "s3cret" * 1_000])
def test_the_rejected_input_is_never_echoed(ann: TestClient, value: str) -> None:
    for response in [
        ann.post("/api/tasks", json={"title": [value], "status": value, value: value}),
        ann.get("/api/tasks", params={"status": value[:600], "limit": value[:600]}),
        ann.get(f"/api/tasks/{value[:600]}"),
    ]:
        assert response.status_code == 422
        assert "s3cret" not in response.text
        assert len(response.content) < 1000


def test_refused_requests_change_nothing(ann: TestClient) -> None:
    assert ann.get("/api/tasks").json() == []
