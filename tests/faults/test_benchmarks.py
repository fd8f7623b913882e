"""The benchmarks run completely, and the service responds without errors."""

import subprocess
from pathlib import Path

from benchmarks.breakdown import STEPS, WHOLE
from benchmarks.comparison import DEF
from settings import ROOT
from tests.faults.conftest import needs_wrk

pytestmark = needs_wrk


def _rows(printed: str, name: str) -> list[list[str]]:
    lines = printed.partition(f"\n{name}\n\n")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_quick_run_measures_every_operation_without_errors(
    checkout: Path, environment: dict[str, str]
) -> None:
    command = ["uv", "run", "benchmarks/run.py", "--quick"]
    command += ["--only", "operations", "--only", "breakdown"]

    done = subprocess.run(
        [*command, "--seconds", "0.3"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    few, many = (_rows(done.stdout, f"operations-{connections}") for connections in (8, 100))
    assert [len(few), len(many)] == [3 + 6 * 4, 3 + 6 * 3]
    assert {row[-1] for row in few + many if row[1] == "this service"} == {"0"}
    *breakdown, lowest = _rows(done.stdout, "breakdown")
    assert [name for name, *_ in breakdown] == [DEF, *STEPS, WHOLE]
    assert {row[-1] for row in breakdown} == {"0"}
    assert lowest[0].startswith("the lowest")
    document = Path("docs/performance.md")
    assert (checkout / document).read_text() == (ROOT / document).read_text()
