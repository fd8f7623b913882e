"""Define the error body, and map exceptions to error responses."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg2 import errors as postgresql
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from paths import Paths, path_in_app, prefix_of

RETRY_AFTER_SECONDS = 1
# A request of 64 KiB can have thousands of invalid parameters, with names of any length.
ERRORS_MAX = 20
FIELD_MAX_CHARS = 100

SEND_JSON = "Send a JSON object, with Content-Type: application/json"
NOT_JSON = f"The body cannot be read as JSON in UTF-8. {SEND_JSON}"
# FastAPI's detail if it cannot read the body, and Starlette's default.
UNREADABLE = {"There was an error parsing the body", HTTPStatus.BAD_REQUEST.phrase}
SUGGESTION_MAX_CHARS = 200


class ErrorBody(BaseModel):
    """The body of every error."""

    detail: str = Field(
        description="What is wrong, for a person to read.", examples=["Task not found"]
    )
    status_code: int = Field(
        description="The status code of the response.",
        examples=[404],
        json_schema_extra={"format": "int32"},
    )


class FieldError(BaseModel):
    """One invalid field."""

    field: str = Field(
        description="The name of the field, parameter or header; `body` for the whole body.",
        examples=["title"],
    )
    message: str = Field(
        description="What is wrong with it.",
        examples=["String should have at least 1 character"],
    )


class ValidationErrorBody(ErrorBody):
    """The body of a 422."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "detail": "title: String should have at least 1 character",
                    "status_code": 422,
                    "errors": [
                        {"field": "title", "message": "String should have at least 1 character"}
                    ],
                }
            ]
        }
    )

    errors: list[FieldError] = Field(
        description="The invalid fields, each with its reason.",
        examples=[[{"field": "title", "message": "String should have at least 1 character"}]],
    )


# The additional responses that an operation documents.
Responses = dict[int | str, dict[str, Any]]


def documented(status_code: int, description: str, detail: str) -> Responses:
    """Document an error response with an example of its body."""
    example = {"detail": detail, "status_code": status_code}
    content = {"application/json": {"example": example}}
    return {status_code: {"model": ErrorBody, "description": description, "content": content}}


INVALID: Responses = {
    422: {
        "model": ValidationErrorBody,
        "description": "A value is invalid; `errors` says which and why",
    }
}
UNAVAILABLE = documented(
    503,
    "The service is overloaded, or its database or auth server is unavailable; try again",
    "The database is not available; try again",
)


# PostgreSQL's errors if the schema is changed while the service runs. SQLite raises
# OperationalError instead.
SCHEMA_CHANGED = (
    postgresql.UndefinedTable,
    postgresql.UndefinedColumn,
    postgresql.InvalidColumnReference,  # no unique index for ON CONFLICT
    postgresql.InsufficientPrivilege,
)


class SchemaNotCurrentError(Exception):
    """The database responds, but its schema is not the one that this version needs."""


class AuthServerUnavailableError(Exception):
    """No key set has been fetched yet, so the auth server's tokens cannot be verified."""


def error_response(
    status_code: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[FieldError] | None = None,
) -> JSONResponse:
    """Build an error response. All have the same shape."""
    body: dict[str, object] = {"detail": detail, "status_code": status_code}
    if errors is not None:
        body["errors"] = [error.model_dump() for error in errors]
    return JSONResponse(body, status_code, headers)


async def _handle_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    paths: Paths = request.app.state.paths
    path = path_in_app(request.scope)
    headers, detail = dict(error.headers or {}), error.detail
    if detail in UNREADABLE:
        detail = NOT_JSON
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # RFC 9110, 15.5.6. Starlette lists only the methods of one route.
        headers["Allow"] = ", ".join(sorted(paths.methods(path)))
    elif not paths.methods(path) and (similar := paths.similar(path)):
        suggestion = quote(prefix_of(request.scope) + similar)
        if len(suggestion) <= SUGGESTION_MAX_CHARS:  # a user id in it may have any length
            detail = f"{detail}; did you mean {suggestion}?"
    return error_response(error.status_code, detail, headers=headers)


def invalid(where: str, *field: str, message: str) -> RequestValidationError:
    """Create the validation error of a field that FastAPI itself accepts."""
    return RequestValidationError([{"type": "value_error", "loc": (where, *field), "msg": message}])


async def _handle_validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
    # Leave out `input`: it comes from the client, has any size, and may not be JSON.
    errors = [
        FieldError(field=_field_of(problem["loc"]), message=_message_of(problem))
        for problem in error.errors()[:ERRORS_MAX]
    ]
    detail = "; ".join(f"{each.field}: {each.message}" for each in errors)
    return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def _field_of(loc: Sequence[int | str]) -> str:
    """Return `title` for `("body", "title")`; `body` for `("body",)` and `("body", 17)`."""
    names = [name for name in loc[1:] if isinstance(name, str)]
    return ", ".join(names)[:FIELD_MAX_CHARS] or str(loc[0])


def _message_of(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "json_invalid":
        return f"Not valid JSON at character {problem['loc'][1]}: {problem['ctx']['error']}"
    if problem["loc"][0] == "body" == _field_of(problem["loc"]):
        return SEND_JSON
    return str(problem["msg"]).removeprefix("Value error, ")


def cause_of(error: Exception) -> str:
    """Return the driver's message in one line. SQLAlchemy's own would include the statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause).strip().partition("\n")[0]


async def _handle_database_failure(request: Request, error: Exception) -> JSONResponse:
    request.state.reason = cause_of(error)
    return _unavailable("The database is not available; try again")


async def _handle_database_error(request: Request, error: DatabaseError) -> JSONResponse:
    if type(error) is DatabaseError:  # SQLite: the file is damaged
        return await _handle_database_failure(request, error)
    if isinstance(error.orig, SCHEMA_CHANGED):
        return await _handle_schema_not_current(request, error)
    raise error  # pragma: no cover  # a subclass: a bug in the service. Coverage misses this line.


async def _handle_schema_not_current(request: Request, error: Exception) -> JSONResponse:
    request.state.reason = cause_of(error)
    return _unavailable("The database schema is not current; try again")


async def _handle_auth_server_unavailable(
    request: Request, error: AuthServerUnavailableError
) -> JSONResponse:
    request.state.reason = str(error)
    return _unavailable("The auth server is not available; try again")


def busy_response() -> JSONResponse:
    """Build the response to a request that is refused because of overload."""
    return _unavailable("The server is busy; try again")


def stopping_response() -> JSONResponse:
    """Build the response to a request that the server no longer completes because it stops."""
    return _unavailable("The server is stopping; try again")


def _unavailable(detail: str) -> JSONResponse:
    return error_response(
        HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)}
    )


async def _handle_unexpected(_: Request, __: Exception) -> JSONResponse:
    # Starlette then re-raises the exception, and the server logs its traceback.
    return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal Server Error")


EXCEPTION_HANDLERS: dict[
    int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]
] = {
    HTTPException: _handle_http_exception,
    RequestValidationError: _handle_validation_error,
    OperationalError: _handle_database_failure,
    InterfaceError: _handle_database_failure,
    InternalError: _handle_database_failure,  # after a failover, the server may be read-only
    DatabaseError: _handle_database_error,
    PoolTimeoutError: _handle_database_failure,
    AuthServerUnavailableError: _handle_auth_server_unavailable,
    SchemaNotCurrentError: _handle_schema_not_current,
    Exception: _handle_unexpected,
}
