"""The service under a path prefix, behind nginx and Caddy with their examples/deployment."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from playwright.sync_api import Browser, expect

from routes.docs import SINGLE_TASKS
from settings import ROOT
from tests.actors import SECRET, bearer
from tests.e2e.conftest import LIMIT_MILLISECONDS, check_out, needs_chromium
from tests.e2e.readme import SESSION
from tests.e2e.server import Server, free_port
from tests.e2e.swagger_ui import authorize, execute, open_operation

# Debian installs nginx in a directory that is only on root's PATH.
PATH = os.environ["PATH"] + ":/usr/sbin"
NGINX, CADDY = (shutil.which(name, path=PATH) for name in ("nginx", "caddy"))
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
needs_caddy = pytest.mark.skipif(CADDY is None, reason="Caddy is not installed")

EXAMPLES = ROOT / "examples/deployment"
PREFIX = "/todo"

# The minimal configuration of an unprivileged nginx that includes a file of /etc/nginx/conf.d.
NGINX_CONF = """\
daemon off;
master_process off;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include tasks.conf;
}
"""

MAIN = ("python", "main.py", "--port", "{port}", "--root-path", PREFIX)
UVICORN = ("uvicorn", "main:app", "--port", "{port}", "--root-path", PREFIX)

# Whether the proxy strips the prefix, and the command that serves the app.
DEPLOYMENTS = [
    pytest.param(("nginx", False, MAIN), marks=needs_nginx, id="nginx"),
    pytest.param(("nginx", True, UVICORN), marks=needs_nginx, id="nginx strips"),
    pytest.param(("caddy", False, UVICORN), marks=needs_caddy, id="Caddy"),
    pytest.param(("caddy", True, MAIN), marks=needs_caddy, id="Caddy strips"),
]


class Site(NamedTuple):
    """A running proxy, and the port of the service behind it."""

    url: str
    service_port: int
    command: tuple[str, ...]


def _replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def _nginx(folder: Path, port: int, service_port: int, *, strips: bool) -> list[str]:
    example = _replaced(
        (EXAMPLES / "nginx.conf").read_text(),
        ("listen 8080;", f"listen 127.0.0.1:{port};"),
        ("server 127.0.0.1:8000;", f"server 127.0.0.1:{service_port};"),
        ("proxy_pass http://tasks;", f"proxy_pass http://tasks{'/' if strips else ''};"),
    )
    (folder / "tasks.conf").write_text(example)
    (folder / "nginx.conf").write_text(NGINX_CONF)
    return [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def _caddy(folder: Path, port: int, service_port: int, *, strips: bool) -> list[str]:
    example = _replaced(
        (EXAMPLES / "Caddyfile").read_text(),
        ("\n:8080 {", f"\nhttp://127.0.0.1:{port} {{"),
        ("127.0.0.1:8000", f"127.0.0.1:{service_port}"),
        ("handle /todo/*", f"handle{'_path' if strips else ''} /todo/*"),
    )
    (folder / "Caddyfile").write_text(example)
    return [str(CADDY), "run", "--config", str(folder / "Caddyfile")]


@contextmanager
def _proxied(
    deployment: tuple[str, bool, tuple[str, ...]], folder: Path, environment: dict[str, str]
) -> Iterator[Site]:
    program, strips, command = deployment
    port, service_port = free_port(), free_port()
    write = {"nginx": _nginx, "caddy": _caddy}[program]
    own = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    own["CADDY_ADMIN"] = f"unix//{folder}/admin.sock"
    proxy = Server(
        write(folder, port, service_port, strips=strips), folder, environment | own, port
    )
    try:
        yield Site(f"http://127.0.0.1:{port}", service_port, command)
    finally:
        proxy.stop()


@pytest.fixture(params=DEPLOYMENTS)
def site(
    request: pytest.FixtureRequest, tmp_path: Path, environment: dict[str, str]
) -> Iterator[Site]:
    """A proxy, without the service."""
    with _proxied(request.param, tmp_path, environment) as site:
        yield site


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def url(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    environment: dict[str, str],
) -> Iterator[str]:
    """The URL of the service for its users. Each test has users of its own."""
    folder = tmp_path_factory.mktemp("proxy")
    settings = environment | {"BETTER_AUTH_SECRET": SECRET.get_secret_value()}
    with _proxied(request.param, folder, environment) as site:
        checkout = check_out(folder / "todo-backend")
        service = Server(list(site.command), checkout, settings, site.service_port)
        try:
            service.wait("/health")
            yield site.url + PREFIX
        finally:
            service.stop()


def test_the_readme_session_works_under_the_prefix(
    site: Site, checkout: Path, environment: dict[str, str]
) -> None:
    session = _replaced(
        SESSION.replace("http://localhost:8000", site.url + PREFIX),
        ("main.py &", f"main.py --port {site.service_port} --root-path {PREFIX} &"),
    )

    done = subprocess.run(
        ["bash", "-eu", "-c", f"trap 'kill %1; wait' EXIT\n{session}"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    created, listed = re.split(r"(?=HTTP/1\.1 200)", done.stdout)
    assert f"location: {PREFIX}/api/tasks/1\n" in created.lower()
    assert '[{"id":1,"title":"Buy milk"' in listed


@pytest.mark.parametrize(
    ("tasks", "user"), [("/api/tasks", "ann"), ("/api/ann%7C%C3%A4%3F%25/tasks", "ann|ä?%")]
)
def test_location_and_link_are_valid_under_the_prefix(url: str, tasks: str, user: str) -> None:
    with httpx2.Client(headers=bearer(user), timeout=30) as http:
        created = [http.post(f"{url}{tasks}", json={"title": title}) for title in "abc"]
        read = [http.get(task.url.join(task.headers["Location"])) for task in created]

        pages = [http.get(f"{url}{tasks}?limit=1")]
        while following := pages[-1].links.get("next"):
            pages.append(http.get(pages[-1].url.join(following["url"])))

    assert [task.headers["Location"] for task in created] == [
        f"{PREFIX}{tasks}/{task.json()['id']}" for task in created
    ]
    assert [task.json()["title"] for task in read] == ["a", "b", "c"]
    assert [page.json()[0]["title"] for page in pages] == ["c", "b", "a"]


def test_head_large_bodies_and_streams_pass_the_proxy(url: str) -> None:
    lines = b'{"title": "%s"}\n' % (b"x" * 150) * 9000
    assert len(lines) > 1024 * 1024  # nginx's default limit
    with httpx2.Client(headers=bearer("bob"), timeout=60) as http:
        imported = http.post(f"{url}/api/tasks/import", content=lines)
        exported = http.get(f"{url}/api/tasks/export")
        head = http.head(f"{url}/api/tasks?limit=1")
        refused = http.put(f"{url}/api/tasks/export")
        missing = http.get(f"{url}/api/tasks/")

    assert imported.json() == {"imported": 9000}
    assert exported.text.count("\n") == 9000
    assert (head.headers["X-Total-Count"], head.content) == ("9000", b"")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
    assert missing.json()["detail"] == f"Not Found; did you mean {PREFIX}/api/tasks?"


@needs_chromium
def test_swagger_ui_works_under_the_prefix(browser: Browser, url: str) -> None:
    token = bearer("eve")["Authorization"].removeprefix("Bearer ")
    asked: list[str] = []
    errors: list[str] = []
    with browser.new_context() as context:
        context.set_default_timeout(LIMIT_MILLISECONDS)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on(
            "console",
            lambda message: errors.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: errors.append(str(error)))

        page.goto(f"{url}/")
        expect(page).to_have_url(f"{url}/docs")
        authorize(page, token)
        created = execute(open_operation(page, SINGLE_TASKS, "create_task"))
        listed = execute(open_operation(page, SINGLE_TASKS, "list_tasks"))
        page.goto(f"{url}/redoc")
        expect(page.locator('[id$="operation/create_task"] h2').first).to_contain_text("Create")

    assert [status for status, _ in (created, listed)] == ["201", "200"]
    assert '"title": "Buy milk"' in listed[1]
    assert [address for address in asked if not address.startswith(f"{url}/")] == []
    assert errors == []
