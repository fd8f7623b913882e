"""Liveness and readiness checks."""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from db import Database
from errors import UNAVAILABLE

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The body of a successful check."""

    status: Literal["ok"]


@router.get("/health")
async def health() -> Health:
    """Check that the process responds. Needs no token, thread or database."""
    return Health(status="ok")


@router.get("/ready", responses=UNAVAILABLE)
async def ready(request: Request) -> Health:
    """Check that requests can be served: the database responds, and its schema is current."""
    database: Database = request.app.state.database
    await database.schema.check()
    return Health(status="ok")
