"""The published contract is the one that the app serves."""

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from docs.contracts.generate import CONTRACT, render
from tests.contract.operations import OPENAPI, OPERATIONS, PROTECTED, Operation, name_of

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)


def test_the_published_contract_is_the_apps() -> None:
    assert CONTRACT.read_text() == render(), "uv run python docs/contracts/generate.py"


def test_the_contract_is_served_without_a_token(anonymous: TestClient) -> None:
    assert anonymous.get("/openapi.json").json() == OPENAPI


def test_operation_ids_make_method_names() -> None:
    ids = [operation.documented["operationId"] for operation in OPERATIONS]

    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []


@every_operation
def test_an_operation_has_a_description_and_documents_its_errors(operation: Operation) -> None:
    documented = operation.documented
    errors = {code: answer for code, answer in documented["responses"].items() if code >= "400"}

    assert documented["description"].endswith(".")
    for code, answer in errors.items():
        schema = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert schema == ("ValidationErrorBody" if code == "422" else "ErrorBody")


DOCUMENTED = {
    "create_task": {"200", "201", "400", "408", "409", "413"},
    "list_tasks": {"200"},
    "patch_tasks": {"200", "400", "408", "413"},
    "delete_tasks": {"200"},
    "read_task": {"200", "304", "404"},
    "put_task": {"200", "400", "404", "408", "412", "413"},
    "patch_task": {"200", "400", "404", "408", "412", "413"},
    "complete_task": {"200", "404", "412"},
    "delete_task": {"204", "404", "412"},
    "export_tasks": {"200"},
    "import_tasks": {"201", "408", "409", "413"},
    "read_me": {"200"},
    "delete_me": {"204"},
}


@pytest.mark.parametrize("operation", PROTECTED, ids=name_of)
def test_an_operation_documents_every_status_that_can_occur(operation: Operation) -> None:
    name = operation.documented["operationId"].removesuffix("_of_user")
    expected = DOCUMENTED[name] | {"401", "422", "503"}
    if operation.path.startswith("/api/ann/"):
        expected |= {"403"}

    assert operation.documented["security"] == [{"bearer": []}]
    assert set(operation.documented["responses"]) == expected


@pytest.mark.parametrize("name", ["TaskCreate", "TaskUpdate", "TaskPublic", "ValidationErrorBody"])
def test_a_schema_has_an_example(name: str) -> None:
    schema: dict[str, Any] = OPENAPI["components"]["schemas"][name]

    (example,) = schema["examples"]
    assert set(example) <= set(schema["properties"])
    assert set(schema.get("required", [])) <= set(example)


def test_what_goes_out_is_required_in_full() -> None:
    task = OPENAPI["components"]["schemas"]["TaskPublic"]

    assert task["required"] == list(task["properties"])
