"""
`docs/reference/signals.md`, generated from the tables of spans, metrics, attributes and log fields.

Not here: the tables (semconv, tracing.spans, metrics.declarations, logs.fields).
"""

from collections.abc import Iterable

from dkist_processing_core.logs.fields import MEANINGS
from dkist_processing_core.metrics import declarations
from dkist_processing_core.metrics.measurement import Metric
from dkist_processing_core.semconv import (
    ATTRIBUTES,
    EXCEPTION,
    EXECUTED,
    EXECUTED_MEANING,
    EXECUTED_UNIT,
    IDENTITY,
    NOMAD,
)
from dkist_processing_core.tracing.spans import SPANS

_HEAD = """\
# Signals

Generated from the tables of the library by `python -m dkist_processing_core.cli.signals_reference`; a test compares the
two. [See your run](../how-to/see-spans.md) explains how to export them, and [operate](../how-to/operate.md#metrics)
how to read the metrics.
"""
_SPANS = f"""\
## Spans

The spans of one run are one trace. An exception that leaves a span is recorded, redacted, as its event `{EXCEPTION}`.
The status of such a span is error, and it has `error.type`. The status of a span without an error is not set.
"""
_METRICS = """\
## Metrics

Long-running processes serve these metrics at `/metrics` for Prometheus. The second name is the one of Prometheus, in
which each `.` of an attribute is `_` as well. A histogram has the further series `…_bucket`, `…_sum` and `…_count`. An
attribute that does not apply to a value is left out. No attribute identifies a run.
"""
_SERVED_BY = (
    ("`collect`, from its store of runs", declarations.OF_ATTEMPTS),
    ("consumers: `consume`, `collect` and `watch`", declarations.OF_CONSUMERS),
    ("`watch`, which serves those of `collect` as well", declarations.OF_WATCH),
    ("`dashboard`, which serves those of `collect` as well", declarations.OF_DASHBOARD),
    ("`outbox relay`, for its outbox and the journal of telemetry that it delivers", declarations.OF_RELAY),
    ("`watch`, where `DKIST_CORE_AIRFLOW_URL` is set", declarations.OF_RECONCILIATION),
)
_COUNTED = ", ".join(f"`{name}`" for name in (*IDENTITY, *NOMAD))
_OF_TASKS = f"""
### Of a task's process, exported over OTLP

| OpenTelemetry | kind | unit | attributes | meaning |
|---|---|---|---|---|
| `{EXECUTED}` | counter | {EXECUTED_UNIT} | {_COUNTED} | {EXECUTED_MEANING} |
"""
_ATTRIBUTES = """\
## Attributes

The source of a name is a part of [OpenTelemetry's semantic conventions](https://opentelemetry.io/docs/specs/semconv/),
with its version and stability, a release of this library, or this library alone.
"""


_LOGS = """\
## Log records

Each record that a logger passes on while a task or a run is observed, or a handler of a consumer is called, has the
fields from `workflow` to `span_id` as attributes, for a formatter of yours. With `DKIST_CORE_LOG_FORMAT=json`, a
process that configures logging itself writes each record as one JSON object on one line. It has these fields, of those
that are known:
"""


def reference() -> str:
    """Return the page."""
    parts = (_HEAD, _SPANS, _spans(), f"{_METRICS}{_metrics()}", _ATTRIBUTES, _attributes(), _LOGS, _fields())
    return "\n".join(parts)


def _fields() -> str:
    return _table(("field", "meaning"), ((f"`{name}`", meaning) for name, meaning in MEANINGS.items()))


def _spans() -> str:
    return _table(
        ("span of", "name", "kind", "parent", "exported by"),
        ((span.subject, span.name, span.kind, span.parent, span.writer) for span in SPANS),
    )


def _metrics() -> str:
    served = "".join(f"\n### Of {who}\n\n{_table_of(metrics)}" for who, metrics in _SERVED_BY)
    return f"{served}{_OF_TASKS}"


def _table_of(metrics: Iterable[Metric]) -> str:
    return _table(
        ("metric", "in Prometheus", "kind", "unit", "attributes", "meaning"),
        (
            (
                f"`{each.name}`",
                f"`{each.series_name}`",
                each.kind,
                f"`{each.unit}`" if each.unit else "",
                ", ".join(f"`{name}`" for name in each.attributes),
                each.meaning,
            )
            for each in metrics
        ),
    )


def _attributes() -> str:
    measured = {name for _, metrics in _SERVED_BY for metric in metrics for name in metric.attributes}
    subjects = {
        name: ", ".join(
            [span.subject for span in SPANS if name in span.attributes] + (["metrics"] if name in measured else [])
        )
        or "failure"
        for name in ATTRIBUTES
    }
    return _table(
        ("attribute", "on", "source", "meaning"),
        ((f"`{each.name}`", subjects[each.name], each.source, each.meaning) for each in ATTRIBUTES.values()),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    lines.insert(1, "|---" * len(head) + "|")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - its output is the file
