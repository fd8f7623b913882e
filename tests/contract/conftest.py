"""Fixtures for tests that share one app per database, because they leave no data."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.actors import bearer, client_of


@pytest.fixture(scope="session")
def anonymous(shared_app: FastAPI) -> Iterator[TestClient]:
    yield from client_of(shared_app, {})


@pytest.fixture(scope="session")
def ann(shared_app: FastAPI) -> Iterator[TestClient]:
    yield from client_of(shared_app, bearer("ann"))
