"""
`docs/reference/signals.md`, generated from the tables of spans and attributes.

Not here: the tables (semconv, tracing.spans).
"""

from collections.abc import Iterable

from dkist_processing_core.semconv import ATTRIBUTES, EXCEPTION
from dkist_processing_core.tracing.spans import SPANS

_HEAD = """\
# Signals

Generated from the tables of the library by `python -m dkist_processing_core.cli.signals_reference`; a test compares the
two. [See the spans](../how-to/see-spans.md) explains how to export them.
"""
_SPANS = f"""\
## Spans

The spans of one run are one trace. An exception that leaves a span is recorded, redacted, as its event `{EXCEPTION}`.
The status of such a span is error, and it has `error.type`. The status of a span without an error is not set.
"""
_ATTRIBUTES = """\
## Attributes

The source of a name is a part of [OpenTelemetry's semantic conventions](https://opentelemetry.io/docs/specs/semconv/),
with its version and stability, a release of this library, or this library alone.
"""


def reference() -> str:
    """Return the page."""
    return f"{_HEAD}\n{_SPANS}\n{_spans()}\n{_ATTRIBUTES}\n{_attributes()}"


def _spans() -> str:
    return _table(
        ("span of", "name", "kind", "parent", "exported by"),
        ((span.subject, span.name, span.kind, span.parent, span.writer) for span in SPANS),
    )


def _attributes() -> str:
    subjects = {
        name: ", ".join(span.subject for span in SPANS if name in span.attributes) or "failure" for name in ATTRIBUTES
    }
    return _table(
        ("attribute", "on spans of", "source", "meaning"),
        ((f"`{each.name}`", subjects[each.name], each.source, each.meaning) for each in ATTRIBUTES.values()),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    lines.insert(1, "|---" * len(head) + "|")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - its output is the file
