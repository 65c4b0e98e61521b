"""
The reports on one run in little memory: the values that they state, without the objects around them.

A received event takes several kilobytes, with the message that it came in. Its values take a few hundred bytes, since
those that repeat within a run are held once. Not here: what is derived from reports (_derivation).
"""

import weakref
from typing import Any

import msgspec

from dkist_processing_core.events import EVENT_CLASSES, Event, Graph, TaskProgressed, encode
from dkist_processing_core.runs._derivation import view_of
from dkist_processing_core.runs._plausibility import Window
from dkist_processing_core.runs._views import RunView

# Longer texts hardly repeat.
_LONGEST_SHARED = 200
# Far more than reporters of this package make; a foreign publisher may make one for each subset of the fields.
_MOST_SHAPES = 1000
# Of which all views together are held: they take about as much as the reports themselves.
_MOST_HELD = 50_000
# All reports on one run agree on these, which are its key.
_OF_THE_RUN = ("workflow_name", "workflow_version", "run_id")
_ENUMS = frozenset({"reported_by", "cause"})
RunKey = tuple[str, str, str]
_Key = tuple[str | int | None, ...]
# A shape's number, and the values of its fields. With nothing but numbers, texts and times in it, the garbage collector
# leaves it alone; millions of tracked objects would take it longer than the fold.
_Packed = tuple[Any, ...]
_Defaults = dict[str, Any]
_Form = tuple[type[Event], tuple[str, ...]]


def _defaults_of(event_class: type[Event]) -> _Defaults:
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

    def event(self, key: RunKey, packed: _Packed) -> Event:
        """Return an event as its values state it."""
        values = self._defaults.copy()
        values.update(zip(_OF_THE_RUN, key, strict=True))
        values.update(zip(self._fields, packed[1:], strict=True))
        for name in self._tables:
            values[name] = dict(zip(values[name][::2], values[name][1::2], strict=True))
        return self._class(**values)


class Shapes:
    """What the runs of a state share: which fields their reports have, by number, and the graphs of workflows."""

    def __init__(self, limit: int = _MOST_SHAPES) -> None:
        """Begin with none; behind `limit` of them there is one more for each class, which has all its fields."""
        self._limit = limit
        # An event of another release's class is no class of ours: it does not come here.
        self._defaults = {event_class: _defaults_of(event_class) for event_class in EVENT_CLASSES}
        self._shapes: list[_Shape] = []
        self._numbers: dict[_Form, int] = {}
        self._graphs: weakref.WeakKeyDictionary[Graph, weakref.ref[Graph]] = weakref.WeakKeyDictionary()

    def pack(self, report: Event, texts: dict[str, str]) -> _Packed:
        """Return the values of a report that are no defaults, and not those of its run; `texts` are held already."""
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
            elif name in _ENUMS:
                value = str(value)
            elif kind is dict:
                if not value:
                    continue
                in_turn = [each for item in value.items() for each in item]
                value = tuple([_shared(each, texts) if type(each) is str else each for each in in_turn])
            elif kind is Graph:
                value = self._shared_graph(value)
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

    def _with_all_fields(self, event_class: type[Event], values: dict[str, Any]) -> tuple[_Form, list[Any]]:
        packed = {
            name: values.get(name, () if isinstance(default, dict) else default)
            for name, default in self._defaults[event_class].items()
            if name not in _OF_THE_RUN
        }
        return (event_class, tuple(packed)), [0, *packed.values()]

    def _shared_graph(self, graph: Graph) -> Graph:
        """Return the one graph that is equal to this one, as long as a report has it."""
        known = self._graphs.get(graph)
        shared = None if known is None else known()
        if shared is None:
            self._graphs[graph] = weakref.ref(graph)
        return shared or graph

    def unpack(self, key: RunKey, packed: _Packed) -> Event:
        """Return the report on the run of a key whose values these are."""
        return self._shapes[packed[0]].event(key, packed)


def _shared(text: str, texts: dict[str, str]) -> str:
    return texts.setdefault(text, text) if len(text) <= _LONGEST_SHARED else text


class Reports:
    """The reports on one run: what is kept of them is the same in whatever order and however often they come."""

    __slots__ = ("_key", "_shapes", "_texts", "_unpacked", "_view", "kept")

    def __init__(self, key: RunKey, shapes: Shapes) -> None:
        """Begin with no report on the run of this key."""
        self.kept: dict[_Key, _Packed] = {}
        self._key = key
        self._shapes = shapes
        self._texts: dict[str, str] = {}
        self._view: tuple[weakref.ref[RunView], Window | None] | None = None
        self._unpacked: dict[_Key, Event] | None = None

    def add(self, report: Event) -> bool:
        """Take a report into account, and return whether it states anything new."""
        key, packed = self._key_of(report), self._shapes.pack(report, self._texts)
        known = self.kept.get(key)
        if known is not None and (known == packed or not _precedes(report, self._shapes.unpack(self._key, known))):
            return False
        self.kept[key] = packed
        if self._unpacked is not None:
            # Not the report itself, which holds its message.
            self._unpacked[key] = self._shapes.unpack(self._key, packed)
        self._view = None
        return True

    def watch(self) -> None:
        """Keep the reports as events, too, for a caller that looks at the run after each report."""
        if self._unpacked is None:
            self._unpacked = {key: self._shapes.unpack(self._key, packed) for key, packed in self.kept.items()}

    def unwatch(self) -> None:
        """Keep the reports as values only."""
        self._unpacked = None

    def view(self, window: Window | None) -> RunView:
        """Return the view of the run; the same one as long as somebody holds it and nothing has changed."""
        if self._view is not None:
            known, by = self._view[0](), self._view[1]
            if known is not None and by == window:
                return known
        events = self._unpacked or {}
        unpack = (self._shapes.unpack(self._key, packed) for packed in self.kept.values())
        view = view_of(events.values() or unpack, window)
        self._view = weakref.ref(view), window
        return view

    def _key_of(self, report: Event) -> _Key:
        """Return what distinguishes facts about this run and their reporters, as the ids of events do."""
        task_name = getattr(report, "task_name", None)
        subject = (
            report.name,
            report.reported_by.value,
            None if task_name is None else _shared(task_name, self._texts),
            getattr(report, "attempt", None),
        )
        if isinstance(report, TaskProgressed):
            # Only the latest matters: a long task must not fill the memory of a process that watches it.
            return subject
        return (*subject, report.number)


def _precedes(report: Event, known: Event) -> bool:
    """Order reports under one key: by sequence, by how much they state, then by their bytes, the same everywhere."""
    if isinstance(report, TaskProgressed) and isinstance(known, TaskProgressed) and report.sequence != known.sequence:
        return report.sequence > known.sequence
    return (_said(report), encode(report)) > (_said(known), encode(known))


def _said(report: Event) -> int:
    return sum(getattr(report, name) is not None for name in report.__struct_fields__)


class HeldViews:
    """The views that a state holds until there are new reports on their runs, as far as there is room for them."""

    def __init__(self, limit: int = _MOST_HELD) -> None:
        """Begin with none; there is room for views of up to `limit` reports in all."""
        self._room = limit
        self._held: dict[RunKey, tuple[RunView, int]] = {}

    def hold(self, key: RunKey, view: RunView, reports: int) -> None:
        """Hold the view of a run, made of so many reports, in place of the one before, if there is room."""
        self.let_go(key)
        if reports <= self._room:
            self._held[key] = view, reports
            self._room -= reports

    def let_go(self, key: RunKey) -> None:
        """Hold the view of a run no longer."""
        _, reports = self._held.pop(key, (None, 0))
        self._room += reports
