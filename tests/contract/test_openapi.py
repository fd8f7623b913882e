"""The published contract is the one that the app serves."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.testclient import TestClient

from docs.contracts.generate import CONTRACT, render
from tests.contract.operations import OPENAPI, OPERATIONS, PROTECTED, Operation, name_of

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=name_of)


def test_the_published_contract_is_the_apps() -> None:
    assert CONTRACT.read_text() == render(), "uv run python docs/contracts/generate.py"


def test_the_contract_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(OPENAPI).validate()


def test_the_contract_is_served_without_a_token(anonymous: TestClient) -> None:
    assert anonymous.get("/openapi.json").json() == OPENAPI


def test_operation_ids_are_usable_as_method_names() -> None:
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
    "list_changes": {"200", "410"},
    "export_tasks": {"200"},
    "import_tasks": {"200", "201", "408", "409", "413"},
    "list_tags": {"200"},
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


def test_an_operation_is_in_one_of_the_groups_and_has_a_summary_in_words() -> None:
    groups = {tag["name"]: tag["description"] for tag in OPENAPI["tags"]}
    used = [tag for operation in OPERATIONS for tag in operation.documented["tags"]]

    assert len(used) == len(OPERATIONS)
    assert set(used) == set(groups)
    for description in groups.values():
        assert description.endswith(".")
    for operation in OPERATIONS:
        words = operation.documented["operationId"].removesuffix("_of_user").replace("_", " ")
        assert operation.documented["summary"] != words.title()


@every_operation
def test_a_parameter_has_a_description_and_an_example(operation: Operation) -> None:
    for parameter in operation.documented.get("parameters", []):
        assert parameter["description"].endswith("."), parameter["name"]
        if parameter["required"]:
            assert len(parameter["examples"]) == 1, parameter["name"]
        else:  # /docs would fill in and send an example of an optional parameter
            assert not {"example", "examples"} & set(parameter), parameter["name"]
            assert {"example", "examples"} & set(parameter["schema"]), parameter["name"]


def test_a_field_has_a_description_and_an_example() -> None:
    for name, schema in OPENAPI["components"]["schemas"].items():
        for field, documented in schema.get("properties", {}).items():
            variants = [documented, *documented.get("anyOf", [])]
            said = {key for variant in variants for key in variant}
            assert {"description", "examples"} <= said, f"{name}.{field}"


def test_every_field_of_a_task_in_a_response_is_required() -> None:
    task = OPENAPI["components"]["schemas"]["TaskPublic"]

    assert task["required"] == list(task["properties"])


def test_an_import_has_a_body_and_bounds_of_its_own() -> None:
    documented = OPENAPI["paths"]["/api/tasks/import"]["post"]
    details = {
        code: answer["content"]["application/json"].get("example", {}).get("detail")
        for code, answer in documented["responses"].items()
    }

    assert documented["requestBody"]["required"] is True
    assert documented["requestBody"]["content"]["application/jsonl"] == {
        "schema": {"type": "string", "format": "binary"}
    }
    assert details["413"] == f"The body is larger than {64 * 1024 * 1024} bytes"
    assert details["408"] == "The body took longer than 60 seconds"


def test_no_property_has_a_default() -> None:
    for schema in OPENAPI["components"]["schemas"].values():
        for name, property_ in schema.get("properties", {}).items():
            assert "default" not in property_, name


def _schemas(value: object) -> Iterator[dict[str, Any]]:
    """Every schema in the contract, and every other object."""
    if isinstance(value, dict):
        yield value
        yield from (schema for member in value.values() for schema in _schemas(member))
    elif isinstance(value, list):
        yield from (schema for member in value for schema in _schemas(member))


def test_every_integer_has_a_format_and_ids_have_64_bits() -> None:
    schemas = OPENAPI["components"]["schemas"]
    parameters = OPENAPI["paths"]["/api/tasks/{task_id}"]["get"]["parameters"]
    (selected,) = (
        parameter["schema"]["items"]
        for parameter in OPENAPI["paths"]["/api/tasks"]["delete"]["parameters"]
        if parameter["name"] == "id"
    )
    integers = [schema for schema in _schemas(OPENAPI) if schema.get("type") == "integer"]

    assert {schema.get("format") for schema in integers} == {"int32", "int64"}
    assert schemas["TaskPublic"]["properties"]["id"]["format"] == "int64"
    assert [p["schema"]["format"] for p in parameters if p["in"] == "path"] == ["int64"]
    assert selected["format"] == "int64"
    for name in ("created_at", "updated_at"):
        assert schemas["TaskPublic"]["properties"][name]["format"] == "date-time"
