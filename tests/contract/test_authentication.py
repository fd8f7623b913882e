"""Requests without a valid token get a 401, whatever else is in them."""

import pytest
from starlette.testclient import TestClient

from tests.actors import SECRET, bearer
from tests.contract.operations import OPERATIONS, PROTECTED, Operation, name_of

every_protected_operation = pytest.mark.parametrize("operation", PROTECTED, ids=name_of)


def test_every_api_operation_requires_a_token() -> None:
    assert [o.path for o in OPERATIONS if o not in PROTECTED] == ["/health", "/ready"]
    assert len(PROTECTED) == 27


@every_protected_operation
def test_a_request_without_a_token_is_401(anonymous: TestClient, operation: Operation) -> None:
    response = anonymous.request(operation.method, operation.path)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json() == {
        "detail": "Send a token: Authorization: Bearer <JWT>",
        "status_code": 401,
    }


@every_protected_operation
def test_a_request_with_an_invalid_token_is_401(
    anonymous: TestClient, operation: Operation
) -> None:
    expired = bearer("ann", minutes=-1)

    response = anonymous.request(operation.method, operation.path, headers=expired)

    assert response.status_code == 401
    assert (
        response.headers["WWW-Authenticate"]
        == 'Bearer error="invalid_token", error_description="Token has expired"'
    )
    assert response.json() == {"detail": "Token has expired", "status_code": 401}


@every_protected_operation
@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b"x" * 100_000])
def test_the_token_is_checked_before_the_body(
    anonymous: TestClient, operation: Operation, body: bytes
) -> None:
    response = anonymous.request(
        operation.method,
        operation.path,
        content=body,
        headers={"Content-Type": "application/json"},
    )

    assert response.status_code == 401


@pytest.mark.parametrize("task_id", ["0", "x", "1_000", str(2**63)])
@pytest.mark.parametrize("tasks", ["/api/tasks", "/api/bob/tasks"])
def test_the_token_is_checked_before_the_path(
    anonymous: TestClient, tasks: str, task_id: str
) -> None:
    assert anonymous.get(f"{tasks}/{task_id}").status_code == 401


@pytest.mark.parametrize("credentials", [None, "", "Basic YW5uOnNlY3JldA==", "Bearers x.y.z"])
def test_without_a_bearer_token_a_401_has_no_error_code(
    anonymous: TestClient, credentials: str | None
) -> None:
    headers = {} if credentials is None else {"Authorization": credentials}

    response = anonymous.get("/api/tasks", headers=headers)

    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    ("token", "description"),
    [
        ("", "Token is not a JWT"),
        ("a b", "Token is not a JWT"),
        ("x.y", "This is Better Auth's session token; send the JWT that /api/auth/token returns"),
    ],
)
def test_a_401_describes_the_problem_with_the_token(
    anonymous: TestClient, token: str, description: str
) -> None:
    response = anonymous.get("/api/tasks", headers={"Authorization": f"Bearer {token}"})

    assert response.json() == {"detail": description, "status_code": 401}
    assert (
        response.headers["WWW-Authenticate"]
        == f'Bearer error="invalid_token", error_description="{description}"'
    )


def test_two_authorization_headers_are_refused(anonymous: TestClient) -> None:
    good = bearer("ann")["Authorization"]

    response = anonymous.get(
        "/api/tasks", headers=[("Authorization", good), ("Authorization", good)]
    )

    assert (response.status_code, response.json()["detail"]) == (
        401,
        "Send one Authorization header",
    )


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR "])
def test_the_scheme_is_case_insensitive(anonymous: TestClient, scheme: str) -> None:
    token = bearer("ann")["Authorization"].removeprefix("Bearer ")

    response = anonymous.get("/api/tasks", headers={"Authorization": f"{scheme} {token}"})

    assert response.status_code == 200


def test_no_response_contains_the_secret_or_the_token(anonymous: TestClient) -> None:
    bad = bearer("ann")["Authorization"][:-4]

    response = anonymous.get("/api/tasks", headers={"Authorization": bad})

    sent = response.text + str(response.headers)
    assert response.status_code == 401
    assert bad.removeprefix("Bearer ") not in sent
    assert SECRET.get_secret_value() not in sent
