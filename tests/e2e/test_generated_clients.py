"""Clients that four generators create from the contract work with the real service."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from pathlib import Path

import pytest

from docs.contracts.generate import CONTRACT
from main import sign
from tests.actors import SECRET
from tests.e2e.conftest import needs_node, npm_ci
from tests.e2e.server import Server

CLIENTS = Path(__file__).with_name("clients")


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    command = [sys.executable, "main.py", "--port", "{port}"]
    return start(*command, BETTER_AUTH_SECRET=SECRET.get_secret_value()).wait("/ready")


@pytest.fixture(scope="session")
def typescript(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The clients of `clients/`, generated and type-checked once for all pytest-xdist workers."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "generated-clients"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "dist").exists():  # pragma: no branch  # another worker may have built it
            made = shutil.ignore_patterns("node_modules", "generated", "dist")
            shutil.copytree(CLIENTS, folder, ignore=made, dirs_exist_ok=True)
            shutil.copy(CONTRACT, folder)
            npm_ci(folder)
            subprocess.run(["npm", "run", "build"], cwd=folder, check=True)
    return folder


@needs_node
@pytest.mark.parametrize("generator", ["openapi-fetch", "hey-api", "orval"])
def test_a_typescript_client_works(server: Server, typescript: Path, generator: str) -> None:
    caller = {"TASKS_URL": server.url, "TASKS_TOKEN": sign(SECRET, "ann", minutes=5)}

    run = subprocess.run(
        ["node", f"dist/{generator}.js"],
        cwd=typescript,
        env=os.environ | caller,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
    assert " 500 " not in server.log.read_text()


def test_a_python_client_works(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Path(sys.executable).with_name("openapi-python-client")
    arguments = [
        "generate",
        "--path",
        str(CONTRACT),
        "--meta",
        "none",
        "--output-path",
        "tasks_client",
    ]
    subprocess.run([program, *arguments], cwd=tmp_path, check=True)
    monkeypatch.syspath_prepend(tmp_path)
    client, models, types = (
        import_module(f"tasks_client.{name}") for name in ("client", "models", "types")
    )
    operations = {
        name: import_module(f"tasks_client.api.{group}.{name}").sync_detailed
        for group, name in (
            ("tasks", "create_task"),
            ("all_tasks", "import_tasks"),
            ("tasks", "list_tasks"),
            ("all_tasks", "export_tasks"),
            ("tasks", "delete_task"),
            ("many_tasks", "delete_tasks"),
        )
    }
    token = sign(SECRET, "ann", minutes=5)
    lines = b'{"title": "first"}\n{"title": "second", "status": "completed"}\n'

    with client.AuthenticatedClient(base_url=server.url, token=token) as ann:
        created = operations["create_task"](client=ann, body=models.TaskCreate(title="made"))
        file = types.File(payload=BytesIO(lines))
        imported = operations["import_tasks"](client=ann, body=file)
        listed = operations["list_tasks"](
            client=ann, sort=models.Sort.TITLE, status=[models.TaskStatus.PENDING]
        )
        exported = operations["export_tasks"](client=ann)
        deleted = operations["delete_task"](client=ann, task_id=created.parsed.id)
        cleared = operations["delete_tasks"](client=ann, status=list(models.TaskStatus))

    assert created.parsed.status is models.TaskStatus.PENDING
    assert imported.parsed.imported == 2
    assert [task.title for task in listed.parsed] == ["first", "made"]
    assert len(exported.content.splitlines()) == 3
    assert deleted.status_code == 204
    assert cleared.parsed.deleted == 2
