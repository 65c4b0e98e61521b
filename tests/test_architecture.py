"""
The structure of the library: which module may import which, which may name a foreign library, and the effects of an
import.

A module is named by the first part of its path below the package.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "dkist_processing_core"
ROOT = Path(__file__).parents[1] / PACKAGE
MODULES = sorted(ROOT.rglob("*.py"))

# From top to bottom: a module imports only from lines below its own. Inside one package imports are free.
LAYERS = (
    {"__init__"},  # provides the public names, resolved at their first use
    {"pytest_plugin"},
    {"cli", "testing"},
    {"watch"},
    {"build_utils", "dashboard", "failure_callback", "notebook_utils", "notify", "reconcile"},
    {"airflow", "workflow"},
    {"local", "node"},
    {"author_checks", "export", "launcher"},
    {"environments", "task"},
    {"attempt", "collect", "dead_letters", "outbox"},
    {"consumer", "delivery", "runs"},
    {"metrics"},
    {"bus", "inbox", "tracing"},
    {"otlp"},
    {"journal", "recorder"},
    {"config", "events", "logs", "semconv"},
    {"author_calls", "identity", "settings"},
    {"budget", "errors", "process", "resource_queue", "text"},
)
DEPTH = {part: depth for depth, layer in enumerate(LAYERS) for part in layer}

# Imports that the layers forbid and that are correct nevertheless: (importing part, imported part) and the reason.
EXCEPTIONS: dict[tuple[str, str], str] = {}

# The modules that an exported file imports, on each look of Airflow at the file.
EXPORTED = [
    ROOT / name for name in ("__init__.py", "airflow/__init__.py", "airflow/callbacks.py", "failure_callback.py")
]

OPTIONAL_LIBRARIES = {
    "aiohttp",
    "airflow",
    "alembic",
    "fastapi",
    "flask",
    "igraph",
    "jinja2",
    "nbconvert",
    "nbformat",
    "psycopg",
    "sqlalchemy",
    "sse_starlette",
    "starlette",
    "talus",
    "uvicorn",
}
# The packages that are about an optional library, and are imported only when they are used.
ROOMS_OF_LIBRARIES = {
    "collect": {"sqlalchemy"},
    "dashboard": {"igraph", "jinja2", "sqlalchemy", "sse_starlette", "starlette", "uvicorn"},
    "inbox": {"alembic", "psycopg", "sqlalchemy"},
    "notify": {"sqlalchemy"},
}


@dataclass(frozen=True)
class Import:
    """One name that a module imports: ``deferred`` into a call, or only for the type checker."""

    name: str
    line: int
    deferred: bool
    for_typing: bool


def named_by(node: ast.AST, package: str) -> Iterator[str]:
    """Return the full names that a node imports; ``package`` is where a relative import starts."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            start = package.split(".")[: len(package.split(".")) - level + 1] if level else []
            origin = ".".join([*start, *([module] if module else [])])
            yield from (f"{origin}.{alias.name}" for alias in names)
        case ast.Call(
            func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield name


def is_for_typing(node: ast.AST) -> bool:
    """Return whether a node is the ``if TYPE_CHECKING`` whose body never runs."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            return True
    return False


def imports_of(tree: ast.AST, package: str, *, deferred: bool = False, for_typing: bool = False) -> Iterator[Import]:
    """Return every import of a module, at whatever depth it stands."""
    for node in ast.iter_child_nodes(tree):
        for name in named_by(node, package):
            yield Import(name, node.lineno, deferred, for_typing)  # type: ignore[attr-defined]
        inside = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if is_for_typing(node):
            assert isinstance(node, ast.If)
            yield from imports_of(ast.Module(node.body, []), package, deferred=inside, for_typing=True)
            yield from imports_of(ast.Module(node.orelse, []), package, deferred=inside, for_typing=for_typing)
        else:
            yield from imports_of(node, package, deferred=inside, for_typing=for_typing)


def part_of(path: Path) -> str:
    """Return the name of a module's file in the layers."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a module's file, which several tests read."""
    return ast.parse(path.read_text(), path)


@cache
def imports_in(path: Path) -> list[Import]:
    """Return every import of a module's file."""
    package = ".".join([PACKAGE, *path.relative_to(ROOT).parent.parts])
    return list(imports_of(tree_of(path), package))


def forbidden_in(part: str, imports: list[Import]) -> Iterator[tuple[str, str]]:
    """Return each part that the layers forbid ``part`` to import, with a sentence about it."""
    for found in imports:
        top, _, rest = found.name.partition(".")
        if top != PACKAGE or found.for_typing:
            continue
        imported = rest.partition(".")[0]
        imported = imported if imported in DEPTH else "__init__"
        if imported != part and DEPTH[imported] <= DEPTH[part]:
            yield imported, f"Line {found.line}: {part} imports {found.name}, which does not stand below it."


def test_every_module_has_its_layer() -> None:
    """A new module is placed among the layers before anything can import it."""
    homeless = {part_of(path) for path in MODULES} - set(DEPTH)

    assert not homeless, f"Place these modules in LAYERS: {sorted(homeless)}."


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_lines_below_it(path: Path) -> None:
    """Imports go downwards, including those inside functions: a reader can learn the library from the bottom up."""
    part = part_of(path)

    found = [sentence for other, sentence in forbidden_in(part, imports_in(path)) if (part, other) not in EXCEPTIONS]

    assert found == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_docstring_refers_to_modules_that_exist(path: Path) -> None:
    """
    The names in parentheses after "Not here:" are paths from the module's package or from a package that contains it.

    Each leads to exactly one module or package that is not on the way to the module itself.
    """
    _, _, elsewhere = " ".join((ast.get_docstring(tree_of(path)) or "").split()).partition("Not here:")
    names = [name for names in re.findall(r"\(([^()]*)\)", elsewhere) for name in re.split(r",\s*|\s+and\s+", names)]
    packages = [parent for parent in path.parents if parent.is_relative_to(ROOT)]
    found = {name: [_modules_at(package / name.replace(".", "/")) for package in packages] for name in names}
    others = {name: set().union(*modules) - {path, *packages} for name, modules in found.items()}
    unclear = [name for name, modules in others.items() if len(modules) != 1]
    assert not unclear, f"Name modules by their paths, such as delivery.publisher: {unclear}."


def _modules_at(path: Path) -> set[Path]:
    """Return the module and the package at a path without suffix."""
    module, package = path.with_name(f"{path.name}.py"), path / "__init__.py"
    return {each for each, file in ((module, module), (path, package)) if file.is_file()}


def test_every_exception_is_still_needed() -> None:
    """An exception to the layers must be removed with its import."""
    used = {(part_of(path), other) for path in MODULES for other, _ in forbidden_in(part_of(path), imports_in(path))}

    assert set(EXCEPTIONS) <= used


@pytest.mark.parametrize(
    ("part", "source", "expected"),
    [
        ("task", "from dkist_processing_core.delivery.publisher import Publisher", []),
        ("task", "from dkist_processing_core import cli", ["cli"]),
        ("task", "def run():\n    import dkist_processing_core.cli", ["cli"]),
        ("task", "from dkist_processing_core.environments import prepare", ["environments"]),
        ("task", "from dkist_processing_core import TaskBase", ["__init__"]),
        ("task", "from . import workflow", ["workflow"]),
        ("task", "def run():\n    return import_module('dkist_processing_core.cli')", ["cli"]),
        ("task", "if TYPE_CHECKING:\n    from .cli import main\nelse:\n    from .watch import look", ["watch"]),
        ("bus", "from dkist_processing_core.bus.amqp.bus import AmqpBus", []),
        ("__init__", "from dkist_processing_core.cli import main", []),
    ],
)
def test_the_rule_sees_through_every_form_of_import(part: str, source: str, expected: list[str]) -> None:
    """An import counts in any form, except for one that only the type checker reads."""
    imports = list(imports_of(ast.parse(source), PACKAGE))

    forbidden = [other for other, _ in forbidden_in(part, imports)]

    assert expected == forbidden


def test_relative_imports_inside_a_package_start_where_it_stands() -> None:
    """Dots go up from the package of the importing module."""
    source = "from . import _journal\nfrom .._wire import decode\nfrom ..errors import BusError"

    names = [found.name for found in imports_of(ast.parse(source), f"{PACKAGE}.bus")]

    assert names == [f"{PACKAGE}.bus._journal", f"{PACKAGE}._wire.decode", f"{PACKAGE}.errors.BusError"]


def test_one_folder_says_pika() -> None:
    """One package contains all use of the AMQP library, so it can be understood, tested and replaced there."""
    saying = {
        path.parent.relative_to(ROOT)
        for path in MODULES
        for found in imports_in(path)
        if found.name.partition(".")[0] == "pika"
    }

    assert saying == {Path("bus/amqp")}


# Modules that write to the standard streams themselves, and why they write no text from outside to a terminal.
WRITERS = {
    "text/terminal.py": "the door",
    "text/console.py": "the door for rich",
    "settings/example.py": "its output is a file of this repository",
    "cli/reference.py": "its output is a file of this repository",
    "cli/signals_reference.py": "its output is a file of this repository",
    "events/schema.py": "its output is a file of this repository",
    "environments/_interpreter.py": "another process of ours reads its output",
    "notebook_utils.py": "the output of a notebook's cell, which is searched for it",
}


def writing_in(tree: ast.AST) -> Iterator[int]:
    """
    Return the lines that write to a standard stream: by print, echo, a console of rich's own, or the stream itself.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"print", "Console", "rich.print"} or called.endswith((".echo", ".secho", ".Console")):
                yield node.lineno
        elif isinstance(node, ast.Attribute) and node.attr in {"write", "writelines", "buffer"}:
            yield from [node.lineno] if ast.unparse(node.value) in {"sys.stdout", "sys.stderr"} else []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_reaches_a_terminal_by_one_door(path: Path) -> None:
    """Control characters that could change a terminal are shown as escapes, by every command."""
    lines = list(writing_in(tree_of(path)))

    assert lines == [] or str(path.relative_to(ROOT)) in WRITERS


@pytest.mark.parametrize(
    "line", ["print(1)", "typer.echo('a')", "click.secho('a')", "Console(stderr=True)", "sys.stderr.buffer"]
)
def test_another_way_to_a_terminal_is_noticed(line: str) -> None:
    """A new command cannot add one unnoticed."""
    assert list(writing_in(ast.parse(line))) == [1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_optional_libraries_are_imported_only_when_they_are_used(path: Path) -> None:
    """A task's environment needs neither Airflow nor a database nor a web framework."""
    optional = OPTIONAL_LIBRARIES - ROOMS_OF_LIBRARIES.get(part_of(path), set())
    eager = [
        found.name
        for found in imports_in(path)
        if not found.deferred and not found.for_typing and found.name.partition(".")[0] in optional
    ]

    assert eager == []


def test_what_the_engine_imports_costs_it_nothing() -> None:
    """An exported file makes Airflow's parser import only the standard library."""
    eager = {
        found.name
        for path in EXPORTED
        for found in imports_in(path)
        if not found.deferred and not found.for_typing and not found.name.startswith(f"{PACKAGE}.airflow.callbacks")
    }

    assert {name.partition(".")[0] for name in eager} <= sys.stdlib_module_names


def test_importing_the_package_does_nothing_else(tmp_path: Path) -> None:
    """It loads no library of Airflow, bus or web, and creates no thread, file, socket, process or log handler."""
    probe = f"""
import json, logging, os, sys, threading

acts = []

def watch(event, args):
    if event.startswith(("_thread.", "os.mkdir", "os.remove", "os.rename", "socket.", "sqlite3.", "subprocess.")):
        acts.append(event)
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        acts.append(f"open {{args[0]}}")

descriptors = len(os.listdir("/proc/self/fd"))
sys.addaudithook(watch)
import {PACKAGE}
print(json.dumps({{
    "acts": acts,
    "descriptors": len(os.listdir("/proc/self/fd")) - descriptors,
    "handlers": len(logging.root.handlers),
    "loaded": sorted({{name.partition(".")[0] for name in sys.modules}}),
    "threads": threading.active_count(),
}}))
"""

    ran = subprocess.run(
        [sys.executable, "-B", "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300
    )

    seen = json.loads(ran.stdout)
    assert OPTIONAL_LIBRARIES.isdisjoint(seen.pop("loaded"))
    assert seen == {"acts": [], "descriptors": 0, "handlers": 0, "threads": 1}


# Finalizers and locks in a fork: `in_use` is held over every fork, and released on both sides. The check of a process's
# own descriptors at its exit is correct in a fork.
FORK_SAFE = {
    "process/forks.py": {"weakref.finalize"},
    "journal/locks.py": {"threading.RLock"},
    "journal/_connections.py": {"atexit.register"},
    "recorder/_task_recorder.py": {"atexit.register"},  # it compares the process's id
    "tracing/_setup.py": {"atexit.register"},  # a fork appends its own telemetry, and forgets its parent's
}
FORK_UNSAFE = {
    *(f"threading.{name}" for name in ("Barrier", "Condition", "Event", "Lock", "RLock", "Semaphore")),
    "atexit.register",
    "weakref.finalize",
}


def test_finalizers_and_locks_of_modules_know_their_process() -> None:
    """
    A finalizer would act on objects that its parent uses. A lock of a module may be held by a thread that the fork does
    not have.

    `functools.cached_property` has such a lock in Python 3.11.
    """
    found: dict[str, set[str]] = {}
    for path in MODULES:
        tree = tree_of(path)
        at_module_level = {call for node in tree.body if isinstance(node, ast.Assign) for call in ast.walk(node)}
        for node in ast.walk(tree):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else getattr(node, "name", None) or ""
            is_lock = name.startswith("threading.")
            if name == "__del__" or (name in FORK_UNSAFE and (node in at_module_level or not is_lock)):
                found.setdefault(str(path.relative_to(ROOT)), set()).add(name)
            named = node.name if isinstance(node, ast.alias) else getattr(node, "attr", None)
            if named == "cached_property":
                found.setdefault(str(path.relative_to(ROOT)), set()).add(named)

    assert found == FORK_SAFE
