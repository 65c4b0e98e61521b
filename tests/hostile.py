"""
Messages of foreign publishers that cost a consumer much time or memory without limits, and a consumer with little
memory.
"""

import json
import multiprocessing
import resource
from collections.abc import Callable
from typing import Any

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.events import CONTENT_TYPE, Event, decode, encode
from dkist_processing_core.journal.message import Message, Properties

MEMORY_BYTES = 900 * 1024 * 1024
_TYPE_PREFIX = "edu.nso.dkist."


def body(name: str, **data: Any) -> bytes:
    """
    Return the body of an event in structured mode with any data.
    """
    identity = {"workflowName": "W", "workflowVersion": "1", "dagRunId": "r", "taskName": "A"}
    attributes = {"specversion": "1.0", "id": "x", "type": _TYPE_PREFIX + name, "time": "2026-01-01T00:00:00Z"}
    event = attributes | {"reportedby": "task", "data": identity | data}
    return json.dumps(event, separators=(",", ":")).encode()


BODIES: dict[str, Callable[[int], bytes]] = {
    "wrong edges": lambda n: body("workflow.started", graph={"nodes": [], "edges": [[1, 1]] * n}),
    "one long edge": lambda n: body("workflow.started", graph={"nodes": [], "edges": [[1] * n]}),
    "a wrong edge last": lambda n: body("workflow.started", graph={"nodes": [], "edges": [["a", "b"]] * n + [[1, 1]]}),
    "wrong nodes": lambda n: body("workflow.started", graph={"nodes": [1] * n, "edges": []}),
    "wrong states": lambda n: body("workflow.finished", tasks={str(i): 1 for i in range(n)}),
    "wrong phases": lambda n: body("task.finished", phases={str(i): "x" for i in range(n)}),
    "unknown fields": lambda n: body("task.finished", **{str(i): [] for i in range(n)}),
    "empty lists": lambda n: body("task.finished", more=[[]] * n),
    "small objects": lambda n: body("task.finished", more=[{"a": 1}] * n),
    "a deep nest": lambda n: body("task.finished", more=0).replace(b":0}", b":" + b"[" * n + b"]" * n + b"}"),
    "digits in text": lambda n: body("task.finished", attempt="1" * n, durationSeconds="1" * n, recipeRunId="1" * n),
    "digits": lambda n: body("task.finished", more=0).replace(b":0}", b":" + b"1" * n + b"}"),
    "decimals": lambda n: body("task.finished", more=0).replace(b":0}", b":0." + b"1" * n + b"}"),
    "control characters": lambda n: body("task.failed", cause="exception", message="\0" * n),
}
"""
Bodies by the kind of element that they contain many times, each a function of the number.
"""


def too_large(exchange: str) -> Message:
    """
    Return a message of 10 MB that once took 98 s and 3.6 GB to decode.
    """
    content = body("workflow.started", graph={"nodes": [], "edges": [[1, 1]] * 1_700_000})
    return Message(exchange, "workflow.started.W", content, Properties("too-large", CONTENT_TYPE))


def next_with_little_memory(settings: DKISTProcessingCoreConfiguration, name: str) -> Event:
    """
    Return the next event of a named subscription, read in a process with at most 900 MB of address space.
    """
    with multiprocessing.get_context("spawn").Pool(1, initializer=_limit_memory) as pool:
        return decode(pool.apply(_next, (settings, name)))


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _next(settings: DKISTProcessingCoreConfiguration, name: str) -> bytes:
    with subscribe(settings=settings, name=name, timeout=30.0) as subscription:
        event = next(subscription)
        event.ack()
        return encode(event)
