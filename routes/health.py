"""Liveness and readiness checks."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from db import Database
from errors import UNAVAILABLE

# How long /ready may take. Load balancers allow a few seconds, and then give up on the process.
READY_SECONDS = 2

router = APIRouter()


class Health(BaseModel):
    """The response of both operations if all is well."""

    status: Annotated[Literal["ok"], Field(description="Always `ok`.", examples=["ok"])]


@router.get("/health", summary="Check the process", response_description="The process is alive")
async def health() -> Health:
    """Return 200 as long as the process is alive, even if the database is down.

    A supervisor should restart a process that does not respond.
    """
    return Health(status="ok")


@router.get(
    "/ready",
    summary="Check the database",
    response_description="Requests can be served",
    responses=UNAVAILABLE,
)
async def ready(request: Request) -> Health:
    """Return 200 if the database answers and its schema is current, and 503 otherwise.

    A load balancer should send requests only to processes that are ready.
    """
    database: Database = request.app.state.database
    await database.schema.check(READY_SECONDS)
    return Health(status="ok")
