"""What ``outbox`` exports: these names, sorted, explained, and nothing else."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import outbox

TYPING = Path(__file__).parent / "typing"
CORE = ("clock", "errors", "events", "lifecycle", "message", "outcome", "protocols", "retry")
# Of use to whoever writes a store, looks at its queues or draws a diagram; they import it from outbox.lifecycle.
LAZY = ("outbox", "outbox.locate", "outbox.relay")
NOT_ON_TOP = {"STAGED", "TRANSITIONS", "Fates"}


def public(name: str) -> Any:
    return getattr(outbox, name)


def test_the_names_are_sorted_and_unique() -> None:
    assert outbox.__all__ == sorted(set(outbox.__all__))


@pytest.mark.parametrize("module", CORE)
def test_every_name_of_the_contract_is_on_top(module: str) -> None:
    exported = set(__import__(f"outbox.{module}", fromlist=["__all__"]).__all__)

    assert exported - NOT_ON_TOP <= set(outbox.__all__)


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in outbox.__all__:
        thing = public(name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            # A class's own docstring: an inherited one speaks of something else.
            assert vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__, name
            assert thing.__name__ == name
            assert thing.__module__.startswith("outbox.")


def test_every_public_method_says_what_it_guarantees() -> None:
    """Where a protocol holds the contract, its implementations need not repeat it."""
    classes = [public(name) for name in outbox.__all__ if inspect.isclass(public(name))]
    contracts = {n for c in classes if getattr(c, "_is_protocol", False) for n, f in methods(c) if f.__doc__}
    silent = [
        f"{c.__name__}.{n}" for c in classes for n, f in methods(c) if not f.__doc__ and n not in contracts
    ]

    assert {"put", "claim", "settle", "deliver", "now"} <= contracts
    assert not silent


def methods(kind: type) -> list[tuple[str, Any]]:
    return [(n, f) for n, f in vars(kind).items() if inspect.isfunction(f) and not n.startswith("_")]


def test_a_star_import_brings_the_public_names_only() -> None:
    namespace: dict[str, Any] = {}

    exec("from outbox import *", namespace)

    assert set(namespace) - {"__builtins__"} == set(outbox.__all__)


def test_dir_shows_the_public_names_before_any_is_used() -> None:
    assert set(dir(outbox)) == {*outbox.__all__, "__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'outbox' has no attribute 'Manger'"):
        public("Manger")


def test_the_version_is_the_distributions() -> None:
    assert outbox.__version__ == importlib.metadata.version("durable-outbox")


@pytest.mark.parametrize("package", LAZY)
def test_what_type_checkers_see_is_what_is_there(package: str) -> None:
    """The lazy names stand twice in the file: for type checkers, and for the interpreter."""
    module: Any = importlib.import_module(package)
    tree = ast.parse(inspect.getsource(module))
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    shown = {
        alias.name: f".{node.module or alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert shown == module._LAZY
    assert set(module.__all__) == set(shown) == set(dir(module)) - {"__version__"}


@pytest.mark.parametrize("package", LAZY)
def test_every_lazy_name_is_what_its_own_file_calls_so(package: str) -> None:
    module: Any = importlib.import_module(package)

    for name, where in module._LAZY.items():
        file = importlib.import_module(where, package)
        assert getattr(module, name) is (file if where == f".{name}" else getattr(file, name))


def test_a_name_is_looked_for_once() -> None:
    run = subprocess.run(
        [sys.executable, "-I", "-c", "import outbox; outbox.Message; print('Message' in vars(outbox))"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert run.stdout == "True\n"


def test_a_file_of_public_names_is_there_without_being_imported_by_name() -> None:
    program = "import outbox; outbox.errors.StoreError; outbox.Runner; print(outbox.runner.__name__)"
    run = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)

    assert run.stdout == "outbox.runner\n"


def test_the_typed_example_runs() -> None:
    """The type checker reads it too, in the session ``types``."""
    run = subprocess.run(
        [sys.executable, "-I", "-W", "error", TYPING / "example.py"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
    assert "delivered" in run.stdout


def test_the_typed_example_uses_public_names_only() -> None:
    tree = ast.parse((TYPING / "example.py").read_text(encoding="utf-8"))
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    modules |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}

    assert "outbox" in modules
    assert not [m for m in modules if m and m.startswith("outbox.")]
