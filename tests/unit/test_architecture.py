"""The layout: which module may import which, and where an owner is named."""

import ast
import re
from collections.abc import Iterator

import pytest

from settings import ROOT

LAYERS = [
    {"settings", "models", "errors", "logs", "metrics", "telemetry"},
    {"db", "jwks", "gate", "overload"},
    {"protocol"},
    {"auth"},
    {"routes.paging", "routes.preconditions", "rates"},
    {"routes.tasks", "routes.users", "routes.health", "routes.docs"},
    {"routes.transfers"},
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
def test_imports_stand_at_the_top(module: str) -> None:
    tree = _source(module)

    assert [node.lineno for node, _ in _imports(tree) if node not in tree.body] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_opens_with_one_sentence(module: str) -> None:
    docstring = ast.get_docstring(_source(module)) or ""

    assert docstring.partition("\n")[0].endswith(".")


STATEMENTS = re.compile(r"(?<![.\w])(?:select|update|delete|exists)\(")


def test_ownership_is_defined_once_and_used_by_every_statement_on_tasks() -> None:
    sources = {module: ast.unparse(_source(module)) for module in MODULES}
    owners = {module: source.count("TASKS.c.user_id") for module, source in sources.items()}
    naming = {module for module, source in sources.items() if "TASKS" in source}

    assert {module: count for module, count in owners.items() if count} == {"models": 1}
    assert naming <= {"models"} | {module for module in MODULES if module.startswith("routes.")}
    for module in naming - {"models"}:
        for statement in _statements(_source(module)):
            assert "owned(" in statement


def _statements(tree: ast.Module) -> Iterator[str]:
    """Every function, or value at the top of a module, that makes a statement."""
    for node in tree.body:
        source = ast.unparse(node)
        if not isinstance(node, ast.ImportFrom | ast.ClassDef) and STATEMENTS.search(source):
            yield source
