"""The layout: which module may import which, and where an owner is named."""

import ast
import re
from collections.abc import Iterator

import pytest

from settings import ROOT

LAYERS = [
    {"paths"},
    {"settings", "models", "errors", "logs", "metrics", "telemetry"},
    {"driver", "jwks", "gate", "overload", "rates", "statements"},
    {"schema", "protocol"},
    {"db"},
    {"auth"},
    {"guard"},
    {"routes.paging", "routes.preconditions"},
    {"routes.tasks", "routes.users", "routes.health", "routes.docs"},
    {"routes.changes", "routes.transfers", "routes.tools"},
    {"routes.mcp"},
    {"main"},
]
MODULES = set().union(*LAYERS)


def _source(module: str) -> ast.Module:
    return ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())


def _imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, str(node.module)
            yield from ((node, f"{node.module}.{name.name}") for name in node.names)


def test_every_module_has_its_layer() -> None:
    found = {path.stem for path in ROOT.glob("*.py")}
    found |= {f"routes.{path.stem}" for path in ROOT.glob("routes/*.py")} - {"routes.__init__"}

    assert found == MODULES


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module: str) -> None:
    (layer,) = [number for number, modules in enumerate(LAYERS) if module in modules]
    allowed = set().union(*LAYERS[:layer])

    ours = {name for _, name in _imports(_source(module)) if name in MODULES}

    assert ours <= allowed


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_are_at_the_top(module: str) -> None:
    tree = _source(module)

    assert [node.lineno for node, _ in _imports(tree) if node not in tree.body] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_opens_with_one_sentence(module: str) -> None:
    docstring = ast.get_docstring(_source(module)) or ""

    assert docstring.partition("\n")[0].endswith(".")


# The statements of `main.py purge`, which no request executes.
OF_ALL_USERS = re.compile(r"(_LAST_REMOVED|RECORD_PURGE|PURGE) = ")
STATEMENTS = re.compile(r"(?<![.\w])(?:select|Select|select_tasks|update|delete|exists|_update)\(")


def test_sql_on_tasks_is_in_one_module() -> None:
    naming = {module for module in MODULES if re.search(r"\bTASKS\b", _text(module))}
    building = {
        module
        for module in MODULES
        for _, name in _imports(_source(module))
        if re.fullmatch(r"(sqlalchemy|sqlmodel)(\..+)?\.(select|insert|update|delete|text)", name)
    }

    assert naming == {"models", "statements"}
    assert building - {"models"} == {"statements"}


def test_ownership_is_defined_once() -> None:
    owners = {module: _text(module).count("c.user_id") for module in MODULES}

    assert {module: count for module, count in owners.items() if count} == {"statements": 1}


def test_every_statement_on_tasks_is_limited_to_its_owner() -> None:
    statements = list(_statements(_source("statements")))

    assert statements
    for statement in statements:
        assert re.search(r"\bowned\(|\bowned_with_tombstones\(|\b_one_task\(|which", statement) or (
            OF_ALL_USERS.match(statement)
        )


def _text(module: str) -> str:
    return ast.unparse(_source(module))


def _statements(tree: ast.Module) -> Iterator[str]:
    """Every function or module-level value that builds a statement."""
    for node in tree.body:
        source = ast.unparse(node)
        if isinstance(node, ast.ImportFrom | ast.ClassDef) or "def select_tasks" in source:
            continue
        if "-> ColumnElement[bool]:" in source and "TASKS" not in source:
            continue  # a condition that reads no task
        if STATEMENTS.search(source):
            yield source
