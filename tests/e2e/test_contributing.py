"""The examples of CONTRIBUTING.md, which add a field and an operation, work on a copy."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
from sqlalchemy import URL

from settings import ROOT
from tests.actors import SECRET, bearer
from tests.e2e.server import Server

_, _, EXAMPLE = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add a field\n")
FIELD, OPERATION = re.findall(r"```diff\n(.*?)```", EXAMPLE, re.DOTALL)
COMMANDS = re.findall(r"```bash\n(.*?)```", EXAMPLE, re.DOTALL)[0].splitlines()


def test_the_examples_add_a_field_and_an_operation(
    checkout: Path,
    run: Callable[..., subprocess.CompletedProcess[str]],
    start: Callable[..., Server],
    sqlite_url: URL,
    postgresql_url: URL,
) -> None:
    on_sqlite, on_postgresql = (
        {
            "BETTER_AUTH_SECRET": SECRET.get_secret_value(),
            "DATABASE_URL": url.render_as_string(hide_password=False),
        }
        for url in (sqlite_url, postgresql_url)
    )
    (checkout / "field.diff").write_text(FIELD)
    (checkout / "operation.diff").write_text(OPERATION)

    for command, settings in (
        ("git apply --verbose field.diff operation.diff", on_sqlite),
        *((command, on_sqlite) for command in COMMANDS),
        *((command, on_postgresql) for command in COMMANDS if "alembic" in command),
        ("ruff check", on_sqlite),
        ("ruff format --check", on_sqlite),
    ):
        done = run(*command.split(), **settings)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    for settings in (on_sqlite, on_postgresql):
        _assert_both_work(start("python", "main.py", "--port", "{port}", **settings))
    contract = (checkout / "docs/contracts/openapi.yaml").read_text()
    assert "remind_on:" in contract
    assert "/api/me/statistics:" in contract


def _assert_both_work(server: Server) -> None:
    server.wait("/ready")
    with httpx2.Client(base_url=server.url, headers=bearer("ann")) as ann:
        created = ann.post("/api/tasks", json={"title": "x", "remind_on": "2026-02-01"})
        task = created.headers["Location"]
        moved = ann.put(task, json={"remind_on": "2026-03-01"})
        refused = ann.put(task, json={"remind_on": "some day"})
        kept = ann.get(task)
        cleared = ann.patch(task, json={"remind_on": None})
        counted = ann.get("/api/me/statistics")

    responses = (created, moved, kept, cleared)
    assert [response.json()["remind_on"] for response in responses] == [
        "2026-02-01",
        "2026-03-01",
        "2026-03-01",
        None,
    ]
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "remind_on")
    assert counted.json() == {"pending": 1}
