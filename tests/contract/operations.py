"""The operations of the contract, with values for their path parameters."""

from typing import Any, NamedTuple

from sqlalchemy import make_url

from main import create_app
from tests.actors import settings_for

OPENAPI: dict[str, Any] = create_app(settings_for(make_url("sqlite:///unused.db"))).openapi()


# The required query parameters of operations.
QUERIES = {"patch_tasks": "?status=pending&id=1", "delete_tasks": "?status=pending&id=1"}


class Operation(NamedTuple):
    """A method and a path for user `ann`, and the operation in the contract."""

    method: str
    path: str
    documented: dict[str, Any]


OPERATIONS = [
    Operation(
        method.upper(),
        path.format(user_id="ann", task_id=1)
        + QUERIES.get(documented["operationId"].removesuffix("_of_user"), ""),
        documented,
    )
    for path, methods in OPENAPI["paths"].items()
    for method, documented in methods.items()
]
PROTECTED = [operation for operation in OPERATIONS if "security" in operation.documented]


def name_of(value: object) -> str | None:
    """Return the test id of an operation, or None for other parameters."""
    return f"{value.method} {value.path}" if isinstance(value, Operation) else None
