"""The import graph: one way only, no cycle, and who may know of what."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("trainables", "analysis", "study")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in FILES}


def imported(path):
    """Every module that a file imports anywhere, ours to the submodule."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES) or {node.module}
    return found


RAYS = ("session", "launch", "nodes", "news", "deaths", "gpus", "jobs")
KNOW_RAY = tuple(f"study.{name}" for name in RAYS)
IMPORTS = {module_name(path): imported(path) for path in FILES}


def test_the_graph_is_read():
    assert "trainables.attacks.base" in IMPORTS["trainables.attacks.pgd"]
    assert "trainables.names" in IMPORTS["study.plan"]


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_imports_run_downwards(module):
    allowed = PACKAGES[: PACKAGES.index(module.split(".")[0]) + 1]
    for name in IMPORTS[module]:
        top = name.split(".")[0]
        assert top not in PACKAGES or top in allowed, f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(name for name in IMPORTS if name.startswith("analysis")))
def test_analysis_takes_of_trainables_only_what_is_free_of_torch(module):
    taken = {name for name in IMPORTS[module] if name.startswith("trainables")}
    assert taken <= {"trainables.names", "trainables.errors", "trainables.theory"}


@pytest.mark.parametrize("module", sorted(IMPORTS))
def test_who_may_know_of_ray_mlflow_yaml_and_torch(module):
    tops = {name.split(".")[0] for name in IMPORTS[module]}
    if module.startswith("trainables"):
        assert not tops & {"mlflow", "yaml", "optuna"}
        assert "ray" not in tops or module == "trainables.trainable"
    if module.startswith("analysis"):
        assert not tops & {"torch", "ray"}
    if module.startswith("study"):
        assert "ray" not in tops or module in KNOW_RAY


def test_names_and_errors_import_the_standard_library_alone():
    for module in ("trainables.names", "trainables.errors"):
        assert {name.split(".")[0] for name in IMPORTS[module]} <= sys.stdlib_module_names
    assert not IMPORTS["trainables"]


def test_there_is_no_cycle():
    graph = {name: found & MODULES for name, found in IMPORTS.items()}
    graphlib.TopologicalSorter(graph).prepare()
