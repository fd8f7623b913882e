"""Fixtures for tests that share one app per database, because they leave no data."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.actors import bearer, client_of


@pytest.fixture(scope="session")
def anonymous(standing_app: FastAPI) -> Iterator[TestClient]:
    yield from client_of(standing_app, {})


@pytest.fixture(scope="session")
def ann(standing_app: FastAPI) -> Iterator[TestClient]:
    yield from client_of(standing_app, bearer("ann"))
