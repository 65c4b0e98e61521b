"""
A class of settings as a table for a document: each variable, and the properties of its field.

Not here: the settings themselves (configuration).
"""

from collections.abc import Mapping

from pydantic.fields import FieldInfo

_HEADINGS = ("Environment Variable", "Field Info")


def to_markdown(fields: Mapping[str, FieldInfo]) -> str:
    """Return the table in Markdown."""
    rows = [tuple(cell.replace("|", r"\|") for cell in row) for row in (_HEADINGS, *_rows(fields))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    heading, *rest = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    rule = "|".join("-" * (width + 2) for width in widths)
    return "\n".join([f"| {heading} |", f"|{rule}|", *(f"| {row} |" for row in rest)])


def to_restructured_text(fields: Mapping[str, FieldInfo]) -> str:
    """Return the table in reStructuredText, as a `list-table`."""
    lines = [".. list-table::", "   :widths: 10 90", "   :header-rows: 1", ""]
    for variable, known in (_HEADINGS, *_rows(fields)):
        lines += [f"   * - {variable}", f"     - {known}"]
    return "\n".join(lines)


def _rows(fields: Mapping[str, FieldInfo]) -> list[tuple[str, str]]:
    return [(_variable(name, field), " ".join(str(field).split())) for name, field in fields.items()]


def _variable(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias or field.alias
    return alias if isinstance(alias, str) else name.upper()
