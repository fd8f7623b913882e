"""Run tests/faults and write the figures into the document: `uv run benchmarks/reliability.py`."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"
TESTS = [f"tests/faults/test_{name}.py" for name in ("database_faults", "stops", "overload")]


def main() -> None:
    """Run the tests one after the other, and write their figures into the document."""
    with tempfile.NamedTemporaryFile() as figures:
        environment = os.environ | {"RELIABILITY_FIGURES": figures.name, "SOAK_SECONDS": "60"}
        command = [sys.executable, "-m", "pytest", "-n", "0", "-s", *TESTS]
        ended = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        rows = [json.loads(line) for line in Path(figures.name).read_text().splitlines()]
    table = "| fault | processes | what was seen |\n|---|---|---|\n" + "".join(
        f"| {row['fault']} | {row['workers']} | {row['figures']} |\n" for row in rows
    )
    print(table)
    if ended.returncode:
        sys.exit("A test failed; the document is unchanged.")
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
