"""All forms of DATABASE_URL that libpq accepts."""

from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from sqlalchemy import URL
from starlette.testclient import TestClient

from main import create_app
from settings import Settings
from tests.actors import SECRET, bearer
from tests.wire import Wire, wire_to


@pytest.fixture
def wire(postgresql_url: URL) -> Iterator[Wire]:
    with wire_to(postgresql_url) as wire:
        yield wire


def _tcp(wire: Wire, hosts: str) -> str:
    user, database = quote(wire.url.username or ""), wire.url.database
    secret = quote(str(wire.url.password or ""), safe="")
    return f"postgresql://{user}:{secret}@{hosts}/{database}?sslmode=disable"


FORMS: dict[str, Callable[[Wire], str]] = {
    "one host": lambda wire: _tcp(wire, f"127.0.0.1:{wire.url.port}"),
    "several hosts": lambda wire: _tcp(wire, f"127.0.0.1:1,127.0.0.1:{wire.url.port}"),
    "several hosts, of which one writes": lambda wire: (
        _tcp(wire, f"nonexistent.invalid:1,127.0.0.1:{wire.url.port}")
        + "&target_session_attrs=read-write"
    ),
    "host and port as options": lambda wire: (
        _tcp(wire, "") + f"&host=127.0.0.1&port={wire.url.port}"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_libpq_uri_connects(wire: Wire, form: str) -> None:
    _create_a_task(FORMS[form](wire))


def test_the_host_may_be_a_unix_socket(postgresql_url: URL) -> None:
    folder = postgresql_url.query.get("host")
    if folder is None:  # pragma: no cover  # the server of TEST_DATABASE_URL listens on TCP
        pytest.skip("The server of the tests has no socket")
    host = quote(str(folder), safe="")

    _create_a_task(f"postgresql://{postgresql_url.username}@{host}/{postgresql_url.database}")


def _create_a_task(url: str) -> None:
    settings = Settings(_env_file=None, database_url=url, better_auth_secret=SECRET)

    with TestClient(create_app(settings), headers=bearer("ann")) as ann:
        assert ann.post("/api/tasks", json={"title": "x"}).status_code == 201
