"""The images and compose.yaml, checked and executed without Docker.

The steps of each Dockerfile run in a directory. The command of the image then runs there without
privileges and without write access, as in a container with a read-only root file system.
Not tested: whether the base images exist, and Docker's network.
"""

import graphlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from sqlalchemy import URL

from settings import ROOT, STARTUP_FAILURE
from tests.actors import SECRET
from tests.dockerfile import Image, context_of
from tests.e2e.conftest import HAPROXY, needs_node
from tests.e2e.server import Server, free_port
from tests.e2e.test_better_auth import SignedUp

LIMIT_SECONDS = 60
# Without these capabilities, file modes apply to root too. Root keeps the right to search
# directories, because the PostgreSQL of the tests has its socket in a directory of another user.
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all,+dac_read_search", "--inh-caps=-all"]
UNPRIVILEGED = WITHOUT_CAPABILITIES if os.geteuid() == 0 else []

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


@pytest.mark.parametrize(
    "command",
    [
        "hadolint Dockerfile examples/frontend/Dockerfile",
        "check-jsonschema --builtin-schema compose-spec compose.yaml",
        "check-jsonschema --builtin-schema github-workflows .github/workflows/ci.yml",
        "pre-commit validate-config",
    ],
)
def test_the_linters_find_no_problems(
    run: Callable[..., subprocess.CompletedProcess[str]], command: str
) -> None:
    done = run(*command.split())

    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_the_image_contains_only_the_program(checkout: Path) -> None:
    for name in (".env", "todo.db", "routes/__pycache__/tasks.pyc", ".venv/bin/python"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()

    sent = context_of(checkout / "Dockerfile", checkout)

    program = [*checkout.glob("*.py"), *checkout.glob("routes/*.py")]
    program += [path for path in checkout.glob("migrations/**/*") if path.is_file()]
    program += [checkout / "pyproject.toml", checkout / "uv.lock"]
    assert sent == sorted(str(path.relative_to(checkout)) for path in program)


@pytest.fixture(scope="module")
def image(build: Callable[[str], Image]) -> Image:
    return build("Dockerfile")


@pytest.fixture(scope="module")
def page(build: Callable[[str], Image]) -> Image:
    return build("examples/frontend/Dockerfile")


RunContainer = Callable[..., Server]


@pytest.fixture
def run_container(tmp_path: Path) -> Iterator[RunContainer]:
    """Run a command like a container of the image, except for its port and address."""
    servers: list[Server] = []

    def start(image: Image, command: list[str], port: int, settings: dict[str, str]) -> Server:
        own = [f"--chdir={image.workdir}", *UNPRIVILEGED, *(_at(port, part) for part in command)]
        servers.append(Server(["env", *own], tmp_path, image.environment | settings, port))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def _at(port: int, text: str) -> str:
    return re.sub(r"\b[38]000\b", str(port), text).replace("0.0.0.0", "127.0.0.1")  # noqa: S104


def _exit_code(image: Image, command: list[str]) -> int:
    return subprocess.run(
        [*UNPRIVILEGED, *command],
        cwd=image.workdir,
        env=image.environment,
        check=False,
        timeout=LIMIT_SECONDS,
    ).returncode


def _is_healthy(image: Image, server: Server) -> bool:
    return _exit_code(image, [_at(server.port, part) for part in image.healthcheck]) == 0


def _wait_until_healthy(image: Image, server: Server) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not _is_healthy(image, server):
        assert time.monotonic() < deadline, server.log.read_text()
        assert server.process.poll() is None, server.log.read_text()


def test_the_image_runs_without_root_or_write_access(
    image: Image, run_container: RunContainer
) -> None:
    settings = {"BETTER_AUTH_SECRET": SECRET.get_secret_value()}
    server = run_container(image, image.command, free_port(), settings)

    _wait_until_healthy(image, server)

    assert re.fullmatch("[1-9][0-9]*:[1-9][0-9]*", image.user)
    for name in ("main.py", "new"):
        assert _exit_code(image, ["cp", "/dev/null", name]) == 1
    server.stop()
    assert not _is_healthy(image, server)


def test_an_image_without_settings_reports_the_missing_settings(
    image: Image, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(image, image.command) == STARTUP_FAILURE
    assert capfd.readouterr().err == (
        "Cannot start: Neither BETTER_AUTH_URL nor BETTER_AUTH_SECRET is set: "
        "set one of them to your Better Auth server's URL or secret\n"
    )


@pytest.fixture
def ports() -> dict[str, int]:
    return {name: free_port() for name in SERVICES}


@pytest.fixture
def service_environment(
    empty_postgresql: URL, ports: dict[str, int]
) -> Callable[[str], dict[str, str]]:
    """Return the environment of a service in compose.yaml, with the addresses of the test."""
    database = SERVICES["database"]["environment"]
    compose_url = (
        f"postgresql://{database['POSTGRES_USER']}:{database['POSTGRES_PASSWORD']}"
        f"@database/{database['POSTGRES_DB']}"
    )
    addresses = {
        compose_url: empty_postgresql.render_as_string(hide_password=False),
        "localhost:3000": f"127.0.0.1:{ports['frontend']}",
        "localhost:8000": f"127.0.0.1:{ports['balancer']}",
        "frontend:3000": f"127.0.0.1:{ports['frontend']}",
        "tasks-1:8000": f"127.0.0.1:{ports['tasks-1']}",
        "tasks-2:8000": f"127.0.0.1:{ports['tasks-2']}",
        ":8000": f"127.0.0.1:{ports['balancer']}",
    }
    any_address = re.compile("|".join(map(re.escape, addresses)))

    def environment_of(name: str) -> dict[str, str]:
        return {
            variable: any_address.sub(lambda found: addresses[found[0]], value)
            for variable, value in SERVICES[name]["environment"].items()
        }

    return environment_of


@pytest.fixture
def compose(
    image: Image,
    page: Image,
    ports: dict[str, int],
    service_environment: Callable[[str], dict[str, str]],
    run_container: RunContainer,
    tmp_path: Path,
) -> Iterator[dict[str, Server]]:
    """The page and the balancer, with everything started in the order of compose.yaml."""

    def start(name: str, of: Image) -> Server:
        command = SERVICES[name].get("command", of.command)
        port = {"PORT": str(ports[name])}  # the port of the example page
        return run_container(of, command, ports[name], service_environment(name) | port)

    assert start("schema", image).process.wait(LIMIT_SECONDS) == 0
    for name in ("tasks-1", "tasks-2"):
        _wait_until_healthy(image, start(name, image))
    frontend = start("frontend", page)
    _wait_until_healthy(page, frontend)
    (configuration,) = SERVICES["balancer"]["volumes"]
    command = [str(HAPROXY), "-f", str(ROOT / configuration.partition(":")[0])]
    balancer = Server(
        command, tmp_path, os.environ | service_environment("balancer"), ports["balancer"]
    )
    try:
        yield {"frontend": frontend, "balancer": balancer.wait("/ready")}
    finally:
        balancer.stop()


@needs_node
@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed")
def test_compose_serves_users_who_sign_in_at_its_page(compose: dict[str, Server]) -> None:
    page, balancer = compose["frontend"], compose["balancer"]
    signed_up = SignedUp(page)
    with closing(signed_up.browser):
        ann = {"Authorization": f"Bearer {signed_up.token()}", "Origin": page.url}
    tasks = f"{httpx2.get(f'{page.url}/config.json').json()['apiUrl']}/api/tasks"

    created = httpx2.post(tasks, json={"title": "Buy milk"}, headers=ann)
    listed = [httpx2.get(tasks, headers=ann) for _ in range(4)]

    assert created.status_code == 201
    assert created.headers["Access-Control-Allow-Origin"] == page.url
    assert [response.json() for response in listed] == [[created.json()]] * 4
    answered = re.findall(r"tasks/(tasks-\d) .*GET /api/tasks", balancer.log.read_text())
    assert set(answered) == {"tasks-1", "tasks-2"}
    # The task servers use this name, which Docker resolves.
    keys = httpx2.get(f"{page.url}/api/auth/jwks", headers={"Host": "frontend:3000"})
    assert keys.status_code == 200


def test_compose_starts_services_in_order_of_their_dependencies() -> None:
    waits_for = {name: service.get("depends_on", ()) for name, service in SERVICES.items()}
    del waits_for["frontend"]  # the browser calls the service, not the page's server

    first, second, *replicas, last = graphlib.TopologicalSorter(waits_for).static_order()

    assert (first, second, last) == ("database", "schema", "balancer")
    assert set(replicas) == {"tasks-1", "tasks-2"}


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"database"}))
def test_compose_gives_containers_only_what_they_need(name: str) -> None:
    service = SERVICES[name]

    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert ("ports" in service) == (name in {"balancer", "frontend"})
