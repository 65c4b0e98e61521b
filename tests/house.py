"""
How the library is laid out, counted: `make house`.

Each row has a limit that a redesign aims at; those that tests hold are marked. Not here: what a user sees (benchmarks).
"""

import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.test_architecture import LAYERS, MODULES, PACKAGE, ROOT, imports_in

# Words that say in a figure of speech what a term of the field says plainly, by the glossary of CONTRIBUTING.md.
GLOSSARY = re.compile(
    r"\b(tell|tells|told|say|says|said|speak|speaks|hear|hears|heard|whoever|nobody|bury|buried|blame|blames|owed|unsaid)\b"
    r"|\b(what|who) (is|are|was|were|has|had|can|cannot) ",
    re.IGNORECASE,
)


class Row(NamedTuple):
    """One count, and what it should be."""

    what: str
    found: str
    aim: str


def module_of(path: Path) -> str:
    """Return the name by which a file of the package is imported."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_of(path): path for path in MODULES}


def imported_by(path: Path, *, deferred: bool = True) -> set[str]:
    """Return the modules of the package that a file imports; without `deferred` those that it needs to be imported."""
    found = set()
    for each in imports_in(path):
        if each.for_typing or (each.deferred and not deferred):
            continue
        name = each.name
        while name and name not in NAMES:
            name = name.rpartition(".")[0]
        if name and name != PACKAGE:
            found.add(name)
    return found - {module_of(path)}


def package_of(module: str) -> str:
    """Return the package that a module is in, below the library's own."""
    path = NAMES[module]
    return module if path.name == "__init__.py" else module.rpartition(".")[0]


def circles() -> list[set[str]]:
    """Return the groups of modules each of which imports all others, directly or through them (Tarjan's algorithm)."""
    graph = {name: imported_by(path) for name, path in NAMES.items()}
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = set(stack[stack.index(name) :])
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(group)

    for name in graph:
        if name not in order:
            visit(name)
    return found


def private_imports() -> list[tuple[str, str]]:
    """Return the imports of an underscore module from outside of its package."""
    return [
        (name, other)
        for name, path in NAMES.items()
        for other in sorted(imported_by(path))
        if other.rpartition(".")[2].startswith("_") and not f"{name}.".startswith(f"{other.rpartition('.')[0]}.")
    ]


def prose_of(path: Path) -> Iterator[str]:
    """Yield the docstrings and comments of a file."""
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith("# noqa"):
            yield token.string


def rows() -> Iterator[Row]:
    """Yield what is counted."""
    sizes = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in MODULES}
    large = sorted((size, str(path)) for path, size in sizes.items() if size > 300)
    yield Row("modules: median, largest", f"{statistics.median(sizes.values()):.0f}, {max(sizes.values())}", "110, 400")
    names = ", ".join(f"{path} {size}" for size, path in reversed(large))
    yield Row("modules over 300 lines", names, "each with a reason")
    top = [path for path in ROOT.glob("*.py") if path.name != "__init__.py"]
    yield Row("files at the top level", str(len(top)), "at most 16")
    yield Row("layers in the architecture test", str(len(LAYERS)), "at most 14")
    groups = [", ".join(sorted(name.removeprefix(f"{PACKAGE}.") for name in group)) for group in circles()]
    yield Row("circles of imports", "; ".join([str(len(groups)), *groups]), "0")
    yield Row("imports of another package's private module", str(len(private_imports())), "0")
    prose = [text for path in MODULES for text in prose_of(path)]
    leaning = sum(GLOSSARY.search(text) is not None for text in prose)
    yield Row("docstrings and comments with words of the glossary", f"{leaning} of {len(prose)}", "few")


def main() -> None:
    """Print the table."""
    for row in rows():
        print(f"{row.what}\n    is {row.found}; should be {row.aim}")  # noqa: T201 - its output


if __name__ == "__main__":
    main()
