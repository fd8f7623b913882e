"""ETag, If-Match and If-None-Match (RFC 9110, 8.8.3 and 13)."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

STALE = {
    "detail": "The task's version does not satisfy If-Match or If-None-Match",
    "status_code": 412,
}
CHANGES: list[tuple[str, str, dict[str, str] | None]] = [
    ("PUT", "", {"title": "new"}),
    ("PATCH", "", {"title": "new"}),
    ("PATCH", "", {}),
    ("PATCH", "/complete", None),
    ("DELETE", "", None),
]


def test_the_etag_is_the_version(ann: TestClient) -> None:
    created = ann.post("/api/tasks", json={"title": "x"})
    one = created.headers["Location"]

    same = ann.put(one, json={"title": "x"})
    changed = ann.put(one, json={"title": "y"})

    assert created.headers["ETag"] == same.headers["ETag"] == '"1"'
    assert changed.headers["ETag"] == ann.get(one).headers["ETag"] == '"2"'
    assert ann.patch(f"{one}/complete").headers["ETag"] == '"3"'
    assert ann.patch(f"{one}/complete").headers["ETag"] == '"3"'
    ann.patch(f"/api/tasks?id={created.json()['id']}", json={"status": "pending"})
    assert ann.get(one).headers["ETag"] == '"4"'


MET = [
    {"If-Match": '"1"'},
    {"If-Match": "*"},
    {"If-Match": '"7", "1"'},
    {"If-Match": ',"a,b" ,"1",'},
    {"If-Match": 'W/"1"'},
    {"If-Match": 'w/"1"'},
    {"If-Match": 'W/"7",W/"1"'},
    {"If-Match": '"1-gzip"'},
    {"If-Match": '"1;gzip"'},
    {"If-Match": 'W/"1--gzip"'},
    {"If-Match": '"1-br"'},
    {"If-None-Match": '"2"'},
    {"If-Match": '"1"', "If-None-Match": '"2"'},
]
NOT_MET = [
    {"If-Match": '"2"'},
    {"If-Match": 'W/"2"'},
    {"If-Match": '"2-gzip"'},
    {"If-Match": '"1-"'},
    {"If-Match": '"1-2"'},
    {"If-Match": '"-gzip"'},
    {"If-Match": '"*"'},
    {"If-Match": '"01"'},
    {"If-Match": '"' + "9" * 30 + '"'},
    {"If-Match": '""'},
    {"If-None-Match": '"1"'},
    {"If-None-Match": 'W/"1"'},
    {"If-None-Match": '"1-gzip"'},
    {"If-None-Match": "*"},
    {"If-Match": '"1"', "If-None-Match": '"1"'},
]


@pytest.mark.parametrize("headers", MET)
def test_a_change_is_made_if_the_preconditions_are_met(
    ann: TestClient, anns_task: str, headers: dict[str, str]
) -> None:
    assert ann.put(anns_task, json={}, headers=headers).status_code == 200
    assert ann.put(anns_task, json={"title": "Ann's task"}, headers=headers).status_code == 200
    assert ann.delete(anns_task, headers=headers).status_code == 204


def test_no_change_is_made_if_the_preconditions_are_not_met(
    ann: TestClient, anns_task: str
) -> None:
    before = ann.get(anns_task).json()

    for headers in NOT_MET:
        for method, suffix, body in CHANGES:
            response = ann.request(method, anns_task + suffix, json=body, headers=headers)
            assert (response.status_code, response.json()) == (412, STALE)

    assert ann.get(anns_task).json() == before


def test_preconditions_do_not_reveal_another_users_task(bob: TestClient, anns_task: str) -> None:
    for headers in MET + NOT_MET:
        for method, suffix, body in CHANGES:
            response = bob.request(method, anns_task + suffix, json=body, headers=headers)
            assert response.status_code == 404


def test_a_precondition_may_span_several_headers(ann: TestClient, anns_task: str) -> None:
    lines = [("If-Match", '"9"'), ("If-Match", '"1"')]

    assert ann.put(anns_task, json={"title": "new"}, headers=lines).status_code == 200


def test_a_current_version_is_not_sent_again(ann: TestClient, anns_task: str) -> None:
    for tag in ['"1"', 'W/"1"', '"7", W/"1"', '"1-gzip"', "*"]:
        response = ann.get(anns_task, headers={"If-None-Match": tag})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == '"1"'

    for tag in ['"2"', '"11"', 'W/"2"', '"a"']:
        assert ann.get(anns_task, headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.usefixtures("long_limits")
def test_one_of_30_concurrent_writers_with_the_same_etag_succeeds(
    ann: TestClient, anns_task: str
) -> None:
    def write(number: int) -> int:
        response = ann.put(anns_task, json={"title": str(number)}, headers={"If-Match": '"1"'})
        return int(response.status_code)

    with ThreadPoolExecutor(30) as threads:
        codes = list(threads.map(write, range(30)))

    assert sorted(codes) == [200] + [412] * 29
    assert ann.get(anns_task).json()["title"] == str(codes.index(200))
    assert ann.get(anns_task).headers["ETag"] == '"2"'


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
@pytest.mark.parametrize("name", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ['"99"', ""])
def test_a_precondition_of_a_bulk_operation_is_422_and_nothing_changes(
    ann: TestClient, anns_task: str, method: str, name: str, value: str
) -> None:
    before = ann.get(anns_task).json()

    response = ann.request(
        method, f"/api/tasks?id={before['id']}", json={"title": "new"}, headers={name: value}
    )

    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"field": name, "message": "is supported for a single task only"}
    ]
    assert ann.get(anns_task).json() == before
