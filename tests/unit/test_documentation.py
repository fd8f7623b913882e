"""The documents say what the program does."""

import re

from settings import ROOT, Settings
from tests.contract.operations import OPERATIONS

README = (ROOT / "README.md").read_text()


def _table(heading: str) -> list[list[str]]:
    """The rows of the first table under the heading."""
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


def test_every_setting_is_in_the_example() -> None:
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


def test_what_it_withstands_names_tests_that_exist() -> None:
    section = README.partition("## What it withstands\n")[2].partition("\n## ")[0]
    promises = [line for line in section.splitlines() if line.startswith("- ")]
    named = [re.findall(r"`(test_\w+\.py)`", promise) for promise in promises]

    assert all(named)
    assert {name for names in named for name in names} <= {
        path.name for path in ROOT.glob("tests/*/test_*.py")
    }


def test_what_checks_a_promise_of_security_exists() -> None:
    for path in re.findall(r"tests/\w+/\w+\.py", (ROOT / "SECURITY.md").read_text()):
        assert (ROOT / path).exists(), path


def test_links_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
