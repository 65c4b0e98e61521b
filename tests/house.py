"""
Counts about the layout of the library: `make house`.

Each row has its value before the redesign, a limit to aim at, and the command that counts it. Not here: figures for
users (benchmarks).
"""

import ast
import io
import re
import statistics
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from benchmarks import events
from tests.flow import both_flows
from tests.test_architecture import LAYERS, MODULES, PACKAGE, ROOT, imports_in

# Words that are figures of speech where the field has a term, by the glossary of CONTRIBUTING.md.
GLOSSARY = re.compile(
    r"\b(tell|tells|told|say|says|said|speak|speaks|hear|hears|heard|whoever|nobody|bury|buried|blame|blames|owed|unsaid)\b"
    r"|\b(what|who) (is|are|was|were|has|had|can|cannot) ",
    re.IGNORECASE,
)

MOST_LINES = 300
FIELDS_WITH_NAMES_OF_THEIR_OWN = (
    "cpu_seconds",
    "environment_seconds",
    "fingerprint",
    "limit_seconds",
    "peak_memory_bytes",
)
"""Fields of events with unique names: a search finds all places that a new name would change."""


class Row(NamedTuple):
    """One count: its value before the redesign, its value now, its limit, and the command that counts it."""

    what: str
    before: str
    found: str
    aim: str
    command: str = "python -m tests.house"


def module_of(path: Path) -> str:
    """Return the import name of a file of the package."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_of(path): path for path in MODULES}


def imported_by(path: Path, *, deferred: bool = True, for_typing: bool = False) -> set[str]:
    """
    Return the modules of the package that a file imports.

    Args:
        path: The file.
        deferred: Also those that a call imports.
        for_typing: Also those that only the type checker imports.
    """
    found = set()
    for each in imports_in(path):
        if (each.for_typing and not for_typing) or (each.deferred and not deferred):
            continue
        name = each.name
        while name and name not in NAMES:
            name = name.rpartition(".")[0]
        if name and name != PACKAGE:
            found.add(name)
    return found - {module_of(path)}


def circles(*, for_typing: bool = False) -> list[set[str]]:
    """Return the groups of modules in which each imports all others, directly or indirectly (Tarjan's algorithm)."""
    graph = {name: imported_by(path, for_typing=for_typing) for name, path in NAMES.items()}
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


def circles_of_parts() -> list[list[str]]:
    """
    Return, for each package whose parts import each other in a circle, its name and the parts of one circle.

    The parts of a package are the modules and the packages directly in it.
    """
    graphs: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, path in NAMES.items():
        for other in imported_by(path):
            parts, imported = name.split("."), other.split(".")
            depth = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parts, imported, strict=False)))
            if depth < min(len(parts), len(imported)):
                graphs[".".join(parts[:depth])][parts[depth]].add(imported[depth])
    found = []
    for package, graph in graphs.items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            found.append([package, *error.args[1]])
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


def files_to_add_an_event() -> set[str]:
    """Return the files that a developer edits to add a type of event, by the steps of CONTRIBUTING.md."""
    section = (
        (ROOT.parent / "CONTRIBUTING.md").read_text().partition("## Adding a type of event")[2].partition("\n## ")[0]
    )
    steps = "\n".join(re.findall(r"^\d\. .*(?:\n   .*)*", section, flags=re.MULTILINE))
    return set(re.findall(r"`([\w/.]+\.py)`", steps))


def modules_naming(field: str) -> list[str]:
    """Return the modules that use the name of an event's field, as an attribute, an argument or a text."""

    def names(path: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case (
                    ast.Attribute(attr=name)
                    | ast.keyword(arg=str(name))
                    | ast.AnnAssign(target=ast.Name(id=name))
                    | ast.Constant(value=str(name))
                ):
                    yield name

    return [module for module, path in NAMES.items() if field in names(path)]


def rows() -> Iterator[Row]:
    """Yield all counts."""
    yield from rows_of_flow()
    sizes = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in MODULES}
    large = sorted((size, str(path)) for path, size in sizes.items() if size > MOST_LINES)
    found = f"{statistics.median(sizes.values()):.0f}, {max(sizes.values())}"
    yield Row("modules: median, largest", "105, 848", found, "110, 400")
    names = ", ".join(f"{path} {size}" for size, path in reversed(large))
    yield Row(f"modules over {MOST_LINES} lines", "not counted", names or "none", "each with a reason")
    top = [path for path in ROOT.glob("*.py") if path.name != "__init__.py"]
    yield Row("files at the top level", "38", str(len(top)), "at most 16")
    yield Row("layers in the architecture test", "26", str(len(LAYERS)), "at most 14")
    groups = [", ".join(sorted(name.removeprefix(f"{PACKAGE}.") for name in group)) for group in circles()]
    held = "pytest tests/test_house.py"
    yield Row("circles of imports", "4", "; ".join([str(len(groups)), *groups]), "0", held)
    yield Row("imports of another package's private module", "14", str(len(private_imports())), "0", held)
    added = files_to_add_an_event()
    steps = "pytest tests/test_new_event.py"
    yield Row("files touched by hand to add a type of event", "about 14", str(len(added)), "at most 6", steps)
    named = {field: len(modules_naming(field)) for field in FIELDS_WITH_NAMES_OF_THEIR_OWN}
    text = f"{max(named.values())} ({', '.join(f'{field} {count}' for field, count in named.items())})"
    yield Row("modules that name a field, touched to rename it", "about 9", text, "at most 4", held)
    prose = [text for path in MODULES for text in prose_of(path)]
    leaning = sum(GLOSSARY.search(text) is not None for text in prose)
    yield Row(
        "docstrings and comments with words of the glossary", "about 460 of 1,828", f"{leaning} of {len(prose)}", "few"
    )
    yield from rows_of_cost()


def rows_of_flow() -> Iterator[Row]:
    """Yield the length of an event's path, as traced on both buses."""
    flows = dict(both_flows())
    command = "python -m tests.flow"
    on_journal = next(iter(flows.values()))
    found = f"{len(on_journal.files_to_journal)} files, {len(on_journal.calls_to_journal)} calls"
    found += f", {len(on_journal.files_to_codec)} more files for the conversion"
    found += f", entered again: {', '.join(on_journal.entered_again) or 'none'}"
    before, aim = (
        "7 files, about 12 calls, 5 of them inside Publisher",
        "at most 7 files and 8 calls, each file entered once",
    )
    yield Row("from TaskBase.__call__ to the synced journal", before, found, aim, command)
    further = {
        file: len((ROOT / file).read_text().splitlines()) for flow in flows.values() for file in flow.files_to_broker
    }
    found = f"{len(further)}: {', '.join(f'{file} {size}' for file, size in further.items())}"
    yield Row(
        "further files to the broker", "3: of 438, 419 and 848 lines", found, "at most 4, none over 300 lines", command
    )
    found = ", ".join(f"{len(flow.files_to_view)} from {bus}" for bus, flow in flows.items())
    yield Row("files from a delivery to a view", "6 and up to 7 that draw", found, "at most 6 and cli/draw/", command)


def rows_of_cost() -> Iterator[Row]:
    """Yield the processor time of an event."""
    befores = {"construct and encode an event": "67 µs", "decode an event": "148 µs"}
    for measured in events.measure():
        found = f"{measured['ours']} µs, {measured['ratio']} times {measured['other_name']}"
        aim = "at most 12 µs, or 3 times"
        yield Row(measured["name"], befores[measured["name"]], found, aim, "make bench BENCH_ARGS=events")


def main() -> None:
    """Print the table, in Markdown."""
    print("| | was | is | should be | counted by |\n|---|---|---|---|---|")  # noqa: T201 - its output
    for row in rows():
        print(f"| {row.what} | {row.before} | {row.found} | {row.aim} | `{row.command}` |")  # noqa: T201


if __name__ == "__main__":
    main()
