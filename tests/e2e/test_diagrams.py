"""Mermaid's own parser accepts the diagrams of the documents."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from settings import ROOT
from tests.e2e.conftest import needs_node, npm_ci

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")]
DIAGRAMS = {
    f"{document.relative_to(ROOT)}, diagram {number}": diagram
    for document in DOCUMENTS
    for number, diagram in enumerate(
        re.findall(r"```mermaid\n(.*?)```", document.read_text(), re.DOTALL), 1
    )
}
BROKEN = [
    "flowchart LR\n  a[one --> b[two]",
    "flowchart LR\n  subgraph s\n  a --> b",
    "sequenceDiagram\n  a->>>>b: hello",
    "flowchrt LR\n  a --> b",
]


@needs_node
def test_every_diagram_is_valid(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).with_name("mermaid"), tmp_path, dirs_exist_ok=True)
    npm_ci(tmp_path)

    parsed = subprocess.run(
        ["node", "parse.js"],
        cwd=tmp_path,
        input=json.dumps([*DIAGRAMS.values(), *BROKEN]),
        capture_output=True,
        text=True,
        check=True,
    )

    errors = json.loads(parsed.stdout)
    assert dict(zip(DIAGRAMS, errors, strict=False)) == dict.fromkeys(DIAGRAMS)
    # An invalid diagram has an error, which shows that the parser ran.
    assert [type(error) for error in errors[len(DIAGRAMS) :]] == [str] * len(BROKEN)
