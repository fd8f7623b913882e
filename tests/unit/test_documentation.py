"""The documents agree with the code."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from settings import ROOT, Settings
from tests.contract.operations import OPERATIONS

README = (ROOT / "README.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")]
# Codes outside the contract: of paths, of bugs, and of the optional rate limit.
COMMON_STATUS_CODES = {"405", "429", "500"}

every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def _table(heading: str) -> list[list[str]]:
    """Return the rows of the first table under the heading."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    rows = {name.strip("`"): default.strip("`") for name, default, _ in _table("Settings")}
    fields = Settings.model_fields

    assert set(rows) == {name.upper() for name in fields}
    assert rows["CORS_ORIGINS"] == ",".join(fields["cors_origins"].default)
    assert rows["AUTO_MIGRATE"] == str(fields["auto_migrate"].default).lower()
    assert rows["LOG_LEVEL"] == fields["log_level"].default


def test_every_setting_is_in_env_example() -> None:
    example = (ROOT / ".env.example").read_text()
    names = re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)

    assert sorted(names) == sorted(name.upper() for name in Settings.model_fields)


def test_every_operation_is_in_the_readme() -> None:
    rows = {cells[0].strip("`") for cells in _table("The API")}
    operations = {
        f"{method} {path.partition('?')[0]}".replace("tasks/1", "tasks/{task_id}")
        for method, path, _ in OPERATIONS
    }

    assert rows == {name for name in operations if "/ann/" not in name}


def test_the_figures_of_the_readme_are_measured() -> None:
    _, _, measured = (ROOT / "docs/performance.md").read_text().partition("<!-- ratios -->\n")
    table = measured.partition("\n\n")[0].splitlines()
    header, _, *rows = (line.split("|")[1:-1] for line in table)
    columns = [number for number, name in enumerate(header) if "CPU, usual : ours" in name]
    lowest = min(float(row[column]) for row in rows for column in columns)

    claimed = re.findall(r"at\s+least (\d+) times the server CPU for every operation", README)

    assert columns
    assert claimed == [str(int(lowest))]


def test_the_reliability_table_refers_to_existing_tests() -> None:
    section = README.partition("## Resilience\n")[2].partition("\n## ")[0]
    _, *promises = re.split(r"^- ", section, flags=re.MULTILINE)
    named = [re.findall(r"`(test_\w+\.py)`", promise) for promise in promises]

    assert all(named)
    assert {name for names in named for name in names} <= {
        path.name for path in ROOT.glob("tests/*/test_*.py")
    }


def test_the_security_promises_refer_to_existing_tests() -> None:
    for path in re.findall(r"tests/\w+/\w+\.py", (ROOT / "SECURITY.md").read_text()):
        assert (ROOT / path).exists(), path


@every_document
def test_every_operation_in_the_documents_exists(document: Path) -> None:
    named = re.findall(
        r"\b(GET|POST|PUT|PATCH|DELETE) (/(?:api/tasks|health|ready)[\w/{}]*)", document.read_text()
    )
    operations = {
        (method, path.partition("?")[0].replace("tasks/1", "tasks/{task_id}"))
        for method, path, _ in OPERATIONS
    }

    assert set(named) <= operations


def test_every_status_code_of_the_contract_is_in_the_readme() -> None:
    rows = {code for codes, _ in _table("Status codes") for code in codes.split(", ")}
    documented = {code for _, _, operation in OPERATIONS for code in operation["responses"]}

    assert rows == documented | COMMON_STATUS_CODES


@every_document
def test_every_command_in_the_documents_exists(document: Path) -> None:
    for command in re.findall(r"\buv run ([^`\n)|]+)", document.read_text()):
        name, *arguments = shlex.split(command, comments=True)
        script = arguments[0] if name == "python" else name
        exists = (ROOT / script).is_file() if script.endswith(".py") else shutil.which(script)
        assert exists, command


@every_document
def test_every_setting_in_the_examples_exists(document: Path) -> None:
    text = "".join(re.findall(r"```ini\n(.*?)```", document.read_text(), re.DOTALL))

    given = set(re.findall(r"^\s*([A-Z_]+)=", text, re.MULTILINE))

    assert given <= {name.upper() for name in Settings.model_fields}


def test_every_setting_in_compose_exists() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())

    assert compose["x-service"]["environment"].keys() <= {n.upper() for n in Settings.model_fields}


@every_document
def test_every_link_has_a_target(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), target


@every_document
def test_every_file_in_the_documents_exists(document: Path) -> None:
    for name in re.findall(
        r"`((?:docs|tests|benchmarks|migrations|routes|examples)/[\w./-]+)`", document.read_text()
    ):
        assert (ROOT / name).exists() or (document.parent / name).exists(), name


def test_the_commands_of_the_readme_run_every_test_folder() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run = {*project["tool"]["pytest"]["ini_options"]["testpaths"]}
    run |= {*re.findall(r"uv run pytest (tests/\w+)", README)}

    tests = (path.relative_to(ROOT) for path in ROOT.glob("tests/**/test_*.py"))
    assert run == {"/".join(path.parts[:2]) for path in tests}


def test_every_decision_has_the_same_form() -> None:
    decisions = (ROOT / "docs/decisions.md").read_text().split("\n## ")[1:-1]

    for decision in decisions:
        parts = re.findall(r"^\*\*(\w+)\.\*\*", decision, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences", "Alternatives"], decision
