"""The layout: twelve entries, imports that point one way, functions of few parameters."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kip_flax"
# Lowest first: a module imports from its own entry and from those before it.
ORDER = (
    *("runtime", "architectures", "preprocess", "data", "kernels", "networks", "krr"),
    *("algorithms", "config", "export", "runs", "modes"),
)
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py"))


def imported(source, module):
    """What a source imports of kip_flax: by statement, by importlib, as code in a text.

    `module` is the dotted name of the source; relative imports count from it.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parts, node.module] if node.module else parts)
            found += [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += texts(node.value)
    return [
        name for name in found if name.startswith("kip_flax.") and not name.endswith(".__version__")
    ]


def texts(value):
    """What a text names: a dotted module for importlib, or code that imports."""
    if value.startswith("kip_flax.") and value.replace(".", "_").isidentifier():
        return [value]
    if "import" not in value or "kip_flax" not in value:
        return []
    try:
        tree = ast.parse(value)
    except SyntaxError:
        return []
    return imported(ast.unparse(tree), "") if tree.body else []


def points_up(source, module):
    """The imports of a source that point to an entry after its own."""
    own = ORDER.index(module.split(".")[1])
    return [name for name in imported(source, module) if ORDER.index(name.split(".")[1]) > own]


def test_the_package_has_these_twelve_entries():
    entries = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert entries - {"__init__"} == set(ORDER)
    assert len(ORDER) <= 12


@pytest.mark.parametrize("path", [m for m in MODULES if m != "kip_flax/__init__.py"])
def test_imports_point_one_way(path):
    module = path.removesuffix(".py").replace("/", ".")
    assert points_up((ROOT / path).read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    "source",
    [
        "from kip_flax.runs import loop",
        "from kip_flax import runs",
        "import kip_flax.modes.train",
        "def f():\n    from kip_flax.modes import train\n    return train",
        "import importlib\nimportlib.import_module('kip_flax.modes.report')",
        "CODE = 'from kip_flax.runs import loop; loop.run()'",
        "from ..runs import loop",
    ],
)
def test_an_import_that_points_up_is_found(source):
    assert points_up(source, "kip_flax.krr.ridge") != []
    assert (
        points_up(source.replace("modes", "runtime").replace("runs", "data"), "kip_flax.krr.ridge")
        == []
    )


def test_the_package_itself_imports_its_front_door_alone_and_late():
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    assert imported(source, "kip_flax") == [
        "kip_flax.modes.train.distil.distill",  # For type checkers.
        "kip_flax.modes.train.distil.distill",
    ]
    code = "import sys, kip_flax; print([name for name in sys.modules if 'jax' in name])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", [m for m in MODULES if not m.startswith("kip_flax/kernels/cpu/")])
def test_public_functions_have_at_most_six_parameters(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = [
        node
        for body in (tree, *classes)
        for node in body.body
        if isinstance(node, ast.FunctionDef)
        and (not node.name.startswith("_") or node.name == "__init__")
    ]
    assert {f.name: n for f in functions if (n := parameters(f)) > 6} == {}


def parameters(function):
    """How many parameters a function has, `self` and `cls` not counted."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return sum(name not in ("self", "cls") for name in names)


def test_folders_of_tests_are_those_of_the_package():
    """Others hold tests of the project's pages and benchmarks, faults, fixtures and helpers."""
    folders = {p.name for p in (ROOT / "tests").iterdir() if p.is_dir() and p.name != "__pycache__"}
    others = {"project", "benchmarks", "examples", "faults", "fixtures", "support"}
    packages = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders - others == packages
