"""
Processor time of constructing and encoding an event and of decoding it, compared with Python's own JSON.

The floor is `json.dumps` and `json.loads` of the same document, alternately in the same process.
"""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from benchmarks.figures import Row, compare
from dkist_processing_core.events import TaskFinished, decode, encode

ROUNDS = 30
CALLS = 2_000
_FACTS: dict[str, Any] = {
    "time": datetime(2026, 11, 22, 12, tzinfo=UTC),
    "reported_by": "task",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "workflow_name": "l0_to_l1_visp",
    "workflow_version": "2.10.3",
    "run_id": "manual__2026-11-22T12:00:00+00:00",
    "recipe_run_id": 42,
    "task_name": "ParseL0",
    "attempt": 1,
    "max_attempts": 3,
    "duration_seconds": 12.5,
    "cpu_seconds": 11.25,
    "peak_memory_bytes": 2**30,
    "phases": {"pre_run": 0.25, "run": 12.0, "post_run": 0.25},
}


def measure() -> list[Row]:
    """Return the microseconds of each, the medians of rounds of calls."""
    body = encode(TaskFinished(**_FACTS))
    document = json.loads(body)
    return [
        _compared(
            "construct and encode an event",
            lambda: encode(TaskFinished(**_FACTS)),
            lambda: json.dumps(document),
            "json.dumps of its document",
        ),
        _compared("decode an event", lambda: decode(body), lambda: json.loads(body), "json.loads of its document"),
    ]


def _compared(name: str, ours: Callable[[], object], other: Callable[[], object], other_name: str) -> Row:
    pairs = [(_microseconds(ours), _microseconds(other)) for _ in range(ROUNDS)]
    return compare(name, "µs", [each for each, _ in pairs], [each for _, each in pairs], other_name)


def _microseconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - began) / CALLS * 1e6
