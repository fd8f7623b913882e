"""Liveness and readiness checks."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from db import Database
from errors import UNAVAILABLE

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """What both answer where all is well."""

    status: Literal["ok"]


@router.get("/health")
async def health() -> Health:
    """Tell that the process lives. Needs no token, no thread and no database."""
    return Health(status="ok")


@router.get("/ready", responses=UNAVAILABLE)
async def ready(request: Request) -> Health:
    """Tell whether requests can be served: the database answers and its schema is current."""
    database: Database = request.app.state.database
    await database.schema.check()
    return Health(status="ok")
