"""
Compact storage of the reports on one run: the values that they state, without the objects around them.

A received event takes several kilobytes, with the message that it came in. Its values take a few hundred bytes, since
values that repeat within a run are stored once. Not here: the derivation of a state from reports (_derivation).
"""

import functools
import weakref
from collections.abc import Iterable
from typing import Any

import msgspec

from dkist_processing_core.events import (
    EVENT_CLASSES,
    Event,
    Graph,
    Profile,
    TaskOverdue,
    TaskProgressed,
    TaskSampled,
    WorkflowOverdue,
)
from dkist_processing_core.runs._alarms import kind_of, precedence
from dkist_processing_core.runs._derivation import view_of
from dkist_processing_core.runs._plausibility import Window
from dkist_processing_core.runs._views import RunView

# Texts that are longer rarely repeat.
_LONGEST_SHARED = 200
# Reporters of this package need far fewer; a foreign publisher may need one for each subset of the fields.
_MOST_SHAPES = 1000
# The most reports of which views are held: the views take about as much memory as the reports themselves.
_MOST_HELD = 50_000
# So many points of a profile take as much memory in a view as a report.
_POINTS_OF_A_REPORT = 2
# The events of which only the latest about an attempt or a run matters.
_LATEST_ALONE = (TaskProgressed, TaskSampled, TaskOverdue, WorkflowOverdue)
_PROFILE = "profile"
# These fields are the key of a run, and equal in all its reports.
_OF_THE_RUN = ("workflow_name", "workflow_version", "run_id")
_packed_profile = msgspec.msgpack.Encoder().encode
_profile_in = msgspec.msgpack.Decoder(Profile).decode
RunKey = tuple[str, str, str]
_Key = tuple[str | int | None, ...]
# A shape's number, and the values of its fields. It holds only numbers, texts and times, so the garbage collector does
# not track it; the collector would take longer for millions of tracked objects than the fold.
_Packed = tuple[Any, ...]
_Defaults = dict[str, Any]
_ShapeKey = tuple[type[Event], tuple[str, ...]]


@functools.cache
def _defaults_of(event_class: type[Event]) -> _Defaults:
    # Reading the annotations of a class takes as long as folding dozens of reports.
    return {
        field.name: {} if field.default_factory is dict else None if field.required else field.default
        for field in msgspec.structs.fields(event_class)
    }


class _Shape:
    """The fields that some reports of one class state."""

    def __init__(self, event_class: type[Event], defaults: _Defaults, fields: tuple[str, ...]) -> None:
        self._class = event_class
        self._defaults = defaults
        self._fields = fields
        self._tables = [name for name in fields if isinstance(defaults[name], dict)]
        self._profiles = [name for name in fields if name == _PROFILE]

    def event(self, key: RunKey, packed: _Packed) -> Event:
        """Return the event with these values."""
        values = self._defaults.copy()
        values.update(zip(_OF_THE_RUN, key, strict=True))
        values.update(zip(self._fields, packed[1:], strict=True))
        for name in self._tables:
            values[name] = dict(zip(values[name][::2], values[name][1::2], strict=True))
        for name in self._profiles:
            values[name] = None if values[name] is None else _profile_in(values[name])
        return self._class(**values)


class Shapes:
    """Data that the runs of a state share: the numbered sets of fields of their reports, and the workflows' graphs."""

    def __init__(self, limit: int = _MOST_SHAPES) -> None:
        """Start without shapes; after `limit` shapes there is one more for each class, which has all its fields."""
        self._limit = limit
        # Events of another release's classes do not reach this code.
        self._defaults = {event_class: _defaults_of(event_class) for event_class in EVENT_CLASSES}
        self._shapes: list[_Shape] = []
        self._numbers: dict[_ShapeKey, int] = {}
        self._graphs: weakref.WeakKeyDictionary[Graph, weakref.ref[Graph]] = weakref.WeakKeyDictionary()

    def pack(self, report: Event, texts: dict[str, str]) -> _Packed:
        """Return a report's values without defaults and without its run's values; `texts` are already stored."""
        event_class = type(report)
        fields: list[str] = []
        values: list[Any] = [0]
        for name, default in self._defaults[event_class].items():
            value = getattr(report, name)
            if value is None or value is default or name in _OF_THE_RUN:
                continue
            kind = type(value)
            if kind is str:
                value = _shared(value, texts)
            elif isinstance(value, str):
                # A member of an enumeration is an object that the garbage collector tracks.
                value = str(value)
            elif kind is dict:
                if not value:
                    continue
                in_turn = [each for item in value.items() for each in item]
                value = tuple([_shared(each, texts) if type(each) is str else each for each in in_turn])
            elif kind is tuple:
                # Sixty points take 15 KB as objects.
                value = _packed_profile(value)
            else:
                value = self._shared_if_graph(value)
            fields.append(name)
            values.append(value)
        shape = (event_class, tuple(fields))
        if shape not in self._numbers and len(self._shapes) >= self._limit:
            shape, values = self._with_all_fields(event_class, dict(zip(fields, values[1:], strict=True)))
        number = self._numbers.get(shape)
        if number is None:
            number = self._numbers[shape] = len(self._shapes)
            self._shapes.append(_Shape(event_class, self._defaults[event_class], shape[1]))
        values[0] = number
        return tuple(values)

    def _with_all_fields(self, event_class: type[Event], values: dict[str, Any]) -> tuple[_ShapeKey, list[Any]]:
        packed = {
            name: values.get(name, () if isinstance(default, dict) else default)
            for name, default in self._defaults[event_class].items()
            if name not in _OF_THE_RUN
        }
        return (event_class, tuple(packed)), [0, *packed.values()]

    def _shared_if_graph(self, graph: Any) -> Any:
        """Return the graph that is equal to this one, and that a report has already; any other value unchanged."""
        if type(graph) is not Graph:
            return graph
        known = self._graphs.get(graph)
        shared = None if known is None else known()
        if shared is None:
            self._graphs[graph] = weakref.ref(graph)
        return shared or graph

    def unpack(self, key: RunKey, packed: _Packed) -> Event:
        """Return the report with these values on the run of a key."""
        return self._shapes[packed[0]].event(key, packed)


def _shared(text: str, texts: dict[str, str]) -> str:
    return texts.setdefault(text, text) if len(text) <= _LONGEST_SHARED else text


class ReportsOfRun:
    """The reports on one run; the stored content does not depend on their order or repetition."""

    __slots__ = ("_key", "_shapes", "_texts", "_unpacked", "_view", "kept")

    def __init__(self, key: RunKey, shapes: Shapes) -> None:
        """Start without reports on the run of this key."""
        self.kept: dict[_Key, _Packed] = {}
        self._key = key
        self._shapes = shapes
        self._texts: dict[str, str] = {}
        self._view: tuple[weakref.ref[RunView], Window | None] | None = None
        self._unpacked: dict[_Key, Event] | None = None

    def add(self, report: Event) -> bool:
        """Add a report, and return True if it states anything new."""
        key, packed = _key_of(report, self._texts), self._shapes.pack(report, self._texts)
        known = self.kept.get(key)
        if known is not None and (known == packed or not _precedes(report, self._shapes.unpack(self._key, known))):
            return False
        self.kept[key] = packed
        if self._unpacked is not None:
            # The report itself is not kept, since it has a reference to its message.
            self._unpacked[key] = self._shapes.unpack(self._key, packed)
        self._view = None
        return True

    def watch(self) -> None:
        """Also keep the reports as events, for a caller that reads the run after each report."""
        if self._unpacked is None:
            self._unpacked = {key: self._shapes.unpack(self._key, packed) for key, packed in self.kept.items()}

    def unwatch(self) -> None:
        """Keep the reports as values only."""
        self._unpacked = None

    def view(self, window: Window | None) -> RunView:
        """Return the view of the run; the same object while a reference to it exists and nothing has changed."""
        if self._view is not None:
            known, by = self._view[0](), self._view[1]
            if known is not None and by == window:
                return known
        events = self._unpacked or {}
        unpack = (self._shapes.unpack(self._key, packed) for packed in self.kept.values())
        view = view_of(events.values() or unpack, window)
        self._view = weakref.ref(view), window
        return view


def _key_of(report: Event, texts: dict[str, str]) -> _Key:
    """Return the key of an occurrence in its run and its reporter; it distinguishes as the ids of events do."""
    task_name = getattr(report, "task_name", None)
    subject = (
        report.name,
        report.reported_by.value,
        None if task_name is None else _shared(task_name, texts),
        getattr(report, "attempt", None),
    )
    if isinstance(report, _LATEST_ALONE) and report.sequence is not None:
        # A long task must not fill the memory of a process that watches it.
        return (*subject, kind_of(report)) if isinstance(report, TaskOverdue) else subject
    return (*subject, report.number)


def kept_reports(reports: Iterable[Event]) -> list[Event]:
    """Return the reports on one run that have an effect on its state: one for each occurrence and reporter."""
    kept: dict[_Key, Event] = {}
    texts: dict[str, str] = {}
    for report in reports:
        key = _key_of(report, texts)
        known = kept.get(key)
        if known is None or _precedes(report, known):
            kept[key] = report
    return list(kept.values())


def _precedes(report: Event, known: Event) -> bool:
    """Return True if `report` replaces `known`: by sequence, count of stated fields, then bytes, alike everywhere."""
    if isinstance(report, _LATEST_ALONE) and isinstance(known, _LATEST_ALONE) and report.sequence != known.sequence:
        return (report.sequence or 0) > (known.sequence or 0)
    return precedence(report) > precedence(known)


class HeldViews:
    """The views that a state holds until new reports on their runs arrive, while there is room for them."""

    def __init__(self, limit: int = _MOST_HELD) -> None:
        """Start without views; there is room for views of up to `limit` reports in all, or fewer with profiles."""
        self._room = limit
        self._held: dict[RunKey, tuple[RunView, int]] = {}

    def hold(self, key: RunKey, view: RunView, reports: int) -> None:
        """Hold the view of a run, made of `reports` reports, in place of the previous view, if there is room."""
        if key in self._held and self._held[key][0] is view:
            return
        self.release(key)
        size = reports + _points_in(view) // _POINTS_OF_A_REPORT
        if size <= self._room:
            self._held[key] = view, size
            self._room -= size

    def release(self, key: RunKey) -> None:
        """Release the view of a run."""
        _, size = self._held.pop(key, (None, 0))
        self._room += size


def _points_in(view: RunView) -> int:
    ends = (attempt.end for task in view.tasks for attempt in task.attempts)
    return sum(len(end.profile) for end in ends if end is not None and end.profile)
