"""The operations that the app publishes, with their path parameters filled in."""

from typing import Any, NamedTuple

from sqlalchemy import make_url

from main import create_app
from tests.actors import settings_for

OPENAPI: dict[str, Any] = create_app(settings_for(make_url("sqlite:///unused.db"))).openapi()


# What an operation cannot do without.
QUERIES = {"patch_tasks": "?status=pending&id=1", "delete_tasks": "?status=pending&id=1"}


class Operation(NamedTuple):
    """A method on a path, as `ann` would call it, and what the contract says of it."""

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
    """Name a test's parameter where it is an operation."""
    return f"{value.method} {value.path}" if isinstance(value, Operation) else None
