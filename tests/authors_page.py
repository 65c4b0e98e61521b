"""
The sections of `docs/reference/tasks.md` about the classes that authors use, generated from their docstrings.

    python -m tests.authors_page docs/reference/tasks.md

Replaces the sections of the classes; the text before them does not change. Not here: the texts, which are in the
classes themselves, and the comparison of the page with them (test_docs).
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from dkist_processing_core.local.outcomes import RunResult, TaskOutcome, TaskState
from dkist_processing_core.node import Node
from dkist_processing_core.resource_queue import ResourceQueue
from dkist_processing_core.task import TaskBase
from dkist_processing_core.workflow import Workflow

CLASSES: list[type] = [TaskBase, Workflow, RunResult, TaskOutcome, TaskState, ResourceQueue, Node]
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w+): ", re.MULTILINE)
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_SHOWN_WIDTH = 100


def page(text: str) -> str:
    """Return the page with new sections of the classes, which follow all other text."""
    head = text.partition("\n## `")[0].rstrip("\n")
    return "\n\n".join([head, *map(section_of, CLASSES)]) + "\n"


def section_of(described: type) -> str:
    """Return the section of a class: its docstring, its attributes and its methods."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(described))).body
    assert isinstance(body, ast.ClassDef)
    attributes = [
        *_listed(ast.get_docstring(body) or "", "Attributes"),
        *_attributes(body, is_enum=issubclass(described, Enum)),
    ]
    table = _table("attribute", attributes)
    return "\n\n".join([f"## `{described.__name__}`", *_described(body), *table, *_methods(body)])


def _attributes(body: ast.ClassDef, *, is_enum: bool) -> Iterator[tuple[str, str]]:
    """Yield the attributes and properties that have a docstring, and each member of an enumeration."""
    for each, after in zip(body.body, [*body.body[1:], None], strict=True):
        match each, after:
            case (ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc)))):
                default = f" = {ast.unparse(each.value)}" if each.value is not None else ""
                yield f"{name}: {_type(each.annotation)}{default}", doc
            case (ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(doc)))):
                yield name, doc
            case (ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)), _) if is_enum:
                yield name, f"`{value!r}`"
            case (ast.FunctionDef() as method, _) if _is_public(method) and _is_property(method):
                yield f"{method.name}: {_type(method.returns)}", ast.get_docstring(method) or ""


def _methods(body: ast.ClassDef) -> Iterator[str]:
    """Yield the description of each public method."""
    for method in body.body:
        if isinstance(method, ast.FunctionDef) and _is_public(method) and not _is_property(method):
            yield "\n\n".join([f"### `{body.name}.{method.name}`", _signature(method), *_described(method)])


def _signature(method: ast.FunctionDef) -> str:
    """Return the declaration of a method as code, without `self`."""
    arguments = method.args
    if arguments.args and arguments.args[0].arg == "self":
        arguments.args = arguments.args[1:]
    given = re.sub(r"(?<=[\w\]])=", " = ", ast.unparse(arguments))
    result = _type(method.returns)
    if any(ast.unparse(each) == "contextmanager" for each in method.decorator_list):
        result = result.replace("Iterator", "AbstractContextManager")
    line = f"{method.name}({given}) -> {result}"
    if len(line) > _SHOWN_WIDTH:
        plain = [argument + "," for argument in re.split(r", (?=\w+:|\*)", given)]
        line = "\n".join([f"{method.name}(", *(f"    {argument}" for argument in plain), f") -> {result}"])
    return f"```python\n{line}\n```"


def _described(node: ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    """Yield the text of a docstring, and its sections as tables; the attributes of a class have their own table."""
    doc = ast.get_docstring(node) or ""
    yield _EXAMPLE.sub(r"```pycon\n\g<0>\n```", _SECTION.split(doc)[0].strip())
    yield from _table("argument", _listed(doc, "Args"))
    for title, entries in (("Returns", None), ("Raises", _listed(doc, "Raises"))):
        if entries:
            yield f"{title}:"
            yield "\n".join(f"* `{name}`: {_one_line(text)}" for name, text in entries)
        elif entries is None and (text := _text_of(doc, title)):
            yield f"{title}: {_one_line(text)}"


def _text_of(doc: str, title: str) -> str:
    """Return the text of a section of a docstring."""
    parts = _SECTION.split(doc)
    return dict(zip(parts[1::2], parts[2::2], strict=True)).get(title, "")


def _listed(doc: str, title: str) -> list[tuple[str, str]]:
    """Return the names and meanings that a section of a docstring lists."""
    parts = _ENTRY.split(_text_of(doc, title))
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _table(kind: str, rows: list[tuple[str, str]]) -> list[str]:
    if not rows:
        return []
    lines = [f"| `{name.replace('|', chr(92) + '|')}` | {_one_line(meaning)} |" for name, meaning in rows]
    return ["\n".join([f"| {kind} | meaning |", "|---|---|", *lines])]


def _type(annotation: ast.expr | None) -> str:
    """Return an annotation as text; one that is quoted in the source is shown without quotes."""
    return "None" if annotation is None else ast.unparse(annotation).strip("'")


def _one_line(text: str) -> str:
    return " ".join(_SECTION.split(text)[0].split())


def _is_public(method: ast.FunctionDef) -> bool:
    return not method.name.startswith("_")


def _is_property(method: ast.FunctionDef) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "property" for each in method.decorator_list)


if __name__ == "__main__":
    written = Path(sys.argv[1])
    written.write_text(page(written.read_text()))
