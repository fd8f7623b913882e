"""The README's session with curl works as pasted, in a fresh checkout."""

import re
import subprocess
from pathlib import Path

from tests.e2e.readme import SESSION
from tests.e2e.server import free_port


def test_the_readme_session_works_as_pasted(checkout: Path, environment: dict[str, str]) -> None:
    port = str(free_port())
    # The only differences: another port, and stopping the server.
    session = SESSION.replace(":8000", f":{port}").replace("main.py &", f"main.py --port {port} &")
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)

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
    assert "HTTP/1.1 201 Created" in created
    assert '"title":"Buy milk"' in created
    assert '[{"id":1,"title":"Buy milk"' in listed
    assert _git_status(checkout) == ""


def _git_status(checkout: Path) -> str:
    status = ["git", "status", "--porcelain", "--untracked-files"]
    changed = subprocess.run(status, cwd=checkout, check=True, capture_output=True, text=True)
    return "\n".join(line for line in changed.stdout.splitlines() if not line.startswith("A  "))
