"""
Links from the pages to other systems: to traces and logs, by the templates of the site.

Values from events are percent-encoded, and a link leads only to an address of http or https. Not here: the addresses of
the pages themselves (links).
"""

import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from dkist_processing_core.dashboard.site import Site
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.identity.trace_context import (
    derived_attempt_span_id,
    derived_run_span_id,
    derived_trace_id,
    parse_traceparent,
)

_PLACE = re.compile(r"\{(\w+)\}")


def trace_id_of(run: Run, traceparent: str | None) -> str:
    """Return the id of the trace of a run: that of a report on it, which may be in a trace of another system."""
    found = parse_traceparent(traceparent or "")
    return f"{derived_trace_id(run) if found is None else found[0]:032x}"


def trace_link(site: Site, trace_id: str, subject: Run | Attempt) -> str | None:
    """Return the address of the trace of a run or an attempt; None without a template of the site."""
    span = derived_run_span_id(subject) if isinstance(subject, Run) else derived_attempt_span_id(subject)
    return _filled(site.trace_url, {"trace_id": trace_id, "span_id": f"{span:016x}"})


def log_link(site: Site, attempt: Attempt) -> str | None:
    """Return the address of the log of an attempt; None without a template of the site."""
    run = attempt.run
    values = {"workflow": run.workflow_name, "version": run.workflow_version, "run_id": run.run_id}
    return _filled(site.log_url, values | {"task": attempt.task_name, "attempt": str(attempt.attempt)})


def followable(address: str | None) -> str | None:
    """Return an address that a link may lead to; None for any other one, which may come from an event."""
    try:
        parts = urlsplit(address or "")
    except ValueError:
        return None
    return address if parts.scheme in ("http", "https") and parts.hostname else None


def _filled(template: str | None, values: Mapping[str, str]) -> str | None:
    """Return a template with the values in their places; places of other names stay as they are."""
    if template is None:
        return None

    def value(place: re.Match[str]) -> str:
        name = place[1]
        return quote(values[name], safe="", errors="surrogatepass") if name in values else place[0]

    return followable(_PLACE.sub(value, template))
