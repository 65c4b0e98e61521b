"""
The path of an event through the package, read from the stacks of one run on a bus: `python -m tests.flow`.

A profiler watches every call of a task, of the thread that delivers its events, and of a subscription that folds them.
At a few steps it records which functions of the package are on the stack. Not here: the limits (test_flow, house).
"""

import itertools
import linecache
import os
import sqlite3
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from dkist_processing_core import RunState, TaskBase, subscribe
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.services.broker import open_broker
from tests.services.rabbitmq import RabbitMQNode
from tests.test_architecture import ROOT

ENCODED, COMMITTED, SENT, RECEIVED, DECODED, VIEWED = range(6)
_PATIENCE_SECONDS = 100.0
Stack = tuple[tuple[str, str], ...]
"""The functions of the package on a stack, outermost first: each its file, below the package, and its name."""


class NoOp(TaskBase):
    """A task that does nothing."""

    def run(self) -> None:
        """Do nothing."""


@dataclass
class Watch:
    """The stacks at the observed steps."""

    stacks: defaultdict[int, list[Stack]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, frame: FrameType, event: str, subject: Any) -> None:
        """Record the stack, if this call is one of the observed steps."""
        moment = _called(frame) if event == "call" else _called_in_c(frame, subject) if event == "c_call" else None
        if moment is not None:
            self.stacks[moment].append(_stack_of(frame))


def _called(frame: FrameType) -> int | None:
    name, where = frame.f_code.co_name, frame.f_code.co_filename
    if where.endswith("/events/codec.py") and name in {"encode_to_fit", "encode"}:
        return ENCODED
    if where.endswith("/events/codec.py") and name == "decode":
        return DECODED
    if where.endswith("/bus/amqp/pika_connection.py") and name == "gather":
        return SENT
    if name != "__init__":
        return None
    kind = type(frame.f_locals.get("self")).__name__
    return VIEWED if kind == "RunView" else RECEIVED if kind.endswith("ReceivedMessage") else None


def _called_in_c(frame: FrameType, function: Any) -> int | None:
    is_query = function.__name__ == "execute" and isinstance(getattr(function, "__self__", None), sqlite3.Connection)
    is_commit = is_query and '"COMMIT"' in linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    return COMMITTED if is_commit else None


def _stack_of(frame: FrameType | None) -> Stack:
    found = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT):
            found.append((str(path.relative_to(ROOT)), getattr(frame.f_code, "co_qualname", frame.f_code.co_name)))
        frame = frame.f_back
    return tuple(reversed(found))


@contextmanager
def _watching(watch: Watch) -> Iterator[None]:
    """Watch this thread, and the threads that start during the block."""
    before = sys.getprofile()
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


@dataclass(frozen=True)
class Flow:
    """The stacks of the last event of a task on one bus, from the task to a view of its run."""

    to_codec: Stack
    to_commit: Stack
    to_broker: Stack
    """Empty for the embedded journal."""
    to_delivery: Stack
    to_decoding: Stack
    to_view: Stack

    @property
    def calls_to_journal(self) -> Stack:
        """The functions from `TaskBase.__call__`, which is not counted, to the journal's `append`."""
        last = next(index for index, (_, name) in enumerate(self.to_commit) if name == "Journal.append")
        return self.to_commit[1 : last + 1]

    @property
    def files_to_journal(self) -> list[str]:
        """The files of these calls."""
        return _files(self.to_commit[: 1 + len(self.calls_to_journal)])

    @property
    def files_to_codec(self) -> list[str]:
        """The further files that convert the event to a message; their functions return before the journal's call."""
        return [file for file in _files(self.to_codec) if file not in self.files_to_journal]

    @property
    def files_to_read(self) -> list[str]:
        """The files until the event is in the journal, in the order of the first call of each."""
        files = self.files_to_journal
        caller = max(files.index(file) for file, _ in self.to_codec if file in files)
        return [*files[: caller + 1], *self.files_to_codec, *files[caller + 1 :]]

    @property
    def entered_again(self) -> list[str]:
        """The files on the way to the journal that are entered more than once."""
        entered = [
            file
            for file, _ in itertools.groupby(self.to_commit[: 1 + len(self.calls_to_journal)], lambda call: call[0])
        ]
        return [file for file in dict.fromkeys(entered) if entered.count(file) > 1]

    @property
    def files_to_broker(self) -> list[str]:
        """The further files until the connection has the message's frames."""
        return [file for file in _files(self.to_broker) if file not in self.files_to_read]

    @property
    def files_to_view(self) -> list[str]:
        """The files from a delivery to the view of the run."""
        return _files(self.to_delivery, self.to_decoding, self.to_view)


def _files(*stacks: Stack) -> list[str]:
    return list(dict.fromkeys(file for stack in stacks for file, _ in stack))


def trace(settings: DKISTProcessingCoreConfiguration) -> Flow:
    """Run a task on the bus of the environment, which the settings name too, and read its events back."""
    watch = Watch()
    with _watching(watch), subscribe(settings=settings, timeout=_PATIENCE_SECONDS) as subscription:
        with NoOp(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
            task()
        state = RunState()
        for event in subscription:
            state.fold(event)
            if event.name == "task.finished":
                break
        assert len(state.runs) == 1

    def of_task(moment: int) -> Stack:
        return [stack for stack in watch.stacks[moment] if stack[0] == ("task.py", "TaskBase.__call__")][-1]

    return Flow(
        to_codec=of_task(ENCODED),
        to_commit=of_task(COMMITTED),
        to_broker=watch.stacks[SENT][-1] if watch.stacks[SENT] else (),
        to_delivery=watch.stacks[RECEIVED][-1],
        to_decoding=watch.stacks[DECODED][-1],
        to_view=watch.stacks[VIEWED][-1],
    )


def text_of(bus: str, flow: Flow) -> str:
    """Return the path as readable lines."""
    lines = [f"{bus}: {len(flow.calls_to_journal)} calls to the journal, {len(flow.files_to_journal)} files"]
    lines += [f"    {file}: {name}" for file, name in flow.to_commit]
    lines += [f"  converted to a message: {len(flow.files_to_codec)} more files"]
    lines += [f"    {file}: {name}" for file, name in flow.to_codec if file in flow.files_to_codec]
    lines += [f"  entered more than once: {', '.join(flow.entered_again) or 'none'}"]
    lines += [f"  to the broker: {len(flow.files_to_broker)} more files"]
    lines += [f"    {file}: {name}" for file, name in flow.to_broker]
    lines += [f"  from a delivery to a view: {len(flow.files_to_view)} files"]
    lines += [
        f"    {file}: {name}" for stack in (flow.to_delivery, flow.to_decoding, flow.to_view) for file, name in stack
    ]
    return "\n".join(lines)


def both_flows() -> Iterator[tuple[str, Flow]]:
    """Yield the path on the embedded journal, and on a private RabbitMQ, by the names of the buses."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.environ |= {"DKIST_CORE_STATE_DIR": folder, "MESH_CONFIG": ""}
        yield "the embedded journal", trace(DKISTProcessingCoreConfiguration())
        node = RabbitMQNode(Path(folder) / "node")
        try:
            node.start()
            with open_broker(node) as broker:
                os.environ |= broker.env
                yield "RabbitMQ", trace(DKISTProcessingCoreConfiguration())
        finally:
            node.close()


def main() -> None:
    """Print the paths on both buses."""
    for bus, flow in both_flows():
        print(text_of(bus, flow))  # noqa: T201 - its output


if __name__ == "__main__":
    main()
