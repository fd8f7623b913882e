"""The page of examples/frontend, with Better Auth and with tasks in PostgreSQL."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import URL, create_engine, text

from tests.conftest import NewPostgres
from tests.e2e.conftest import check_out
from tests.e2e.frontend.page import opened
from tests.e2e.server import Server, free_port


class Deployment(NamedTuple):
    site: Server
    backend: Server
    database: URL


@pytest.fixture(scope="module")
def deployment(
    request: pytest.FixtureRequest,
    frontend: Path,
    environment: dict[str, str],
    new_postgres: NewPostgres,
    postgres_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """The page with Better Auth, and the task server; the parameter is a token's life in seconds.

    The tests share it, since it takes seconds to start.
    """
    site_port, backend_port = free_port(), free_port()
    site_url = f"http://127.0.0.1:{site_port}"
    of_site = {
        "PORT": str(site_port),
        "BETTER_AUTH_URL": site_url,
        "API_URL": f"http://127.0.0.1:{backend_port}",
        "JWT_EXPIRES_IN_SECONDS": str(getattr(request, "param", 900)),
    }
    preview = ["node", "node_modules/vite/bin/vite.js", "preview", "--host", "127.0.0.1"]
    of_backend = {
        "BETTER_AUTH_URL": site_url,
        "CORS_ORIGINS": site_url,
    }
    main = ["uv", "run", "main.py", "--port", "{port}"]
    checkout = check_out(tmp_path_factory.mktemp("deployment") / "todo-backend")
    with new_postgres(postgres_template) as database, ExitStack() as servers:
        of_backend["DATABASE_URL"] = database.render_as_string(hide_password=False)
        site = Server(preview, frontend, environment | of_site, site_port)
        servers.callback(site.stop)
        backend = Server(main, checkout, environment | of_backend, backend_port)
        servers.callback(backend.stop)
        yield Deployment(site.wait("/api/auth/ok"), backend.wait("/ready"), database)


@pytest.fixture
def site(deployment: Deployment) -> Server:
    """The page with Better Auth; its URL is the page's origin."""
    return deployment.site


@pytest.fixture
def backend(deployment: Deployment) -> Server:
    return deployment.backend


@pytest.fixture
def postgresql_url(deployment: Deployment) -> URL:
    """The task server's database, without what other tests left there."""
    engine = create_engine(deployment.database)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM task"))
    engine.dispose()
    return deployment.database


@pytest.fixture
def ann(browser: Browser, site: Server) -> Iterator[Page]:
    """The page in Ann's browser, before she signs up."""
    with opened(browser, site) as page:
        yield page


@pytest.fixture
def bob(browser: Browser, site: Server) -> Iterator[Page]:
    """The page in Bob's browser, before he signs up."""
    with opened(browser, site) as page:
        yield page


@pytest.fixture
def anns_phone(browser: Browser, site: Server) -> Iterator[Page]:
    """The page in another browser of Ann's, before she signs in."""
    with opened(browser, site) as page:
        yield page
