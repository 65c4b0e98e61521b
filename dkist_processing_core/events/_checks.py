"""
The check that the values of an event go through when it is made, and what its class declares, looked up once.

msgspec checks nothing on construction. Its conversion of all values takes a microsecond and finds whether each of them
is usable as it is; only where one is not, they are read one by one (_reading). Not here: the declarations (_kinds,
event, facts).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect
from msgspec.structs import force_setattr

from dkist_processing_core.events import _reading
from dkist_processing_core.events._kinds import CUT, FREE_TEXT
from dkist_processing_core.text import clean, clean_line

_LINES = frozenset({"traceparent", "tracestate"})
_TEXT_OF_OTHERS = (inspect.DictType, inspect.StructType, inspect.VarTupleType)


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What the fields of a class hold, by their names in Python."""

    wire_names: Mapping[str, str]
    types: Mapping[str, Any]
    required: frozenset[str]
    defaults: Mapping[str, Any]
    shape: type[msgspec.Struct]
    """A class of the same fields without a check of its own."""
    texts: tuple[str, ...]
    """The fields that hold one text, which is cleaned."""
    tables: tuple[str, ...]
    """The fields that hold several texts, each of which is cleaned."""
    times: tuple[str, ...]
    converted: tuple[str, ...]
    """The fields whose value may be given as one of another class, such as the text of an enumeration's member."""
    free_text: tuple[str, ...]
    """The fields with text of people and programs, which is redacted."""
    clippable: tuple[str, ...]
    """The fields that are shortened so that the event fits the bus, in the order in which they are."""
    optional: tuple[str, ...]
    """The fields without which the event still names its subject and states its fact."""


@cache
def form_of(kind: type[msgspec.Struct]) -> Form:
    """Return what a class of events declares, or the graph's."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    found = {field.name: _resolved(field.type) for field in info.fields}
    types = get_type_hints(kind, include_extras=True)
    cuts = {name: extra[CUT] for name, (_, extra) in found.items() if CUT in extra}
    defaults = {
        field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        for field in info.fields
        if not field.required
    }

    def holding(*classes: type[inspect.Type]) -> tuple[str, ...]:
        return tuple(name for name, (parts, _) in found.items() if any(isinstance(part, classes) for part in parts))

    texts, tables, times = holding(inspect.StrType), holding(*_TEXT_OF_OTHERS), holding(inspect.DateTimeType)
    return Form(
        wire_names={field.name: field.encode_name for field in info.fields},
        types={name: types[name] for name in found},
        required=frozenset(field.name for field in info.fields if field.required),
        defaults=defaults,
        shape=msgspec.defstruct(kind.__name__, [(name, types[name]) for name in found], gc=False),
        texts=texts,
        tables=tables,
        times=times,
        converted=tuple(name for name in found if name not in {*texts, *tables, *times}),
        free_text=tuple(name for name, (_, extra) in found.items() if FREE_TEXT in extra),
        clippable=tuple(sorted(cuts, key=lambda name: cuts[name])),
        optional=tuple(name for name in holding(inspect.StrType, inspect.DictType) if name in defaults),
    )


def _resolved(info: inspect.Type) -> tuple[list[inspect.Type], dict[str, Any]]:
    """Return the kinds of values that a field takes, but None, and what its annotations say beside."""
    match info:
        case inspect.Metadata(type=inner, extra=extra):
            parts, others = _resolved(inner)
            return parts, others | (extra or {})
        case inspect.UnionType(types=types):
            each = [_resolved(part) for part in types]
            return [part for parts, _ in each for part in parts], {k: v for _, extra in each for k, v in extra.items()}
        case inspect.NoneType():
            return [], {}
    return [info], {}


def check(fact: msgspec.Struct) -> None:
    """
    Check the values of a new event, exchange them for equal ones of the declared classes, and clean their text.

    Raises:
        EventError: A value is unusable.
    """
    form = form_of(type(fact))
    try:
        values = msgspec.convert(fact, form.shape, from_attributes=True)
    except (msgspec.ValidationError, UnicodeError, OverflowError, RecursionError):
        values = form.shape(**read(type(fact), {name: getattr(fact, name) for name in form.types}))
        for name in form.texts:
            force_setattr(fact, name, getattr(values, name))
    for name in form.converted:
        force_setattr(fact, name, getattr(values, name))
    for name in form.texts:
        text = getattr(values, name)
        if text is not None and not (text.isascii() and text.isprintable()):
            force_setattr(fact, name, (clean_line if name in _LINES else clean)(text))
    for name in form.tables:
        force_setattr(fact, name, _cleaned(getattr(values, name)))
    for name in form.times:
        moment = getattr(values, name)
        force_setattr(fact, name, moment if moment is None or moment.tzinfo is UTC else _in_utc(moment, fact, name))
    if getattr(values, "truncated", None) is False:
        raise _reading.unusable({"truncated": _reading.Problem("False", "expected True, or nothing")})


def read(kind: type[msgspec.Struct], given: Mapping[str, object]) -> dict[str, Any]:
    """
    Return the values of all fields of an event, by their names in Python, from what a foreign publisher has stated.

    Raises:
        EventError: A required value is missing, or one is unusable.
    """
    form = form_of(kind)
    values, problems = _reading.read(form.types, given, form.defaults)
    if problems:
        raise _reading.unusable({form.wire_names[name]: problem for name, problem in problems.items()})
    return values


def _cleaned(value: Any) -> Any:
    """Return a table or a list of texts with each of them cleaned; a graph has cleaned its own."""
    match value:
        case dict():
            return {clean(name): clean(item) if isinstance(item, str) else item for name, item in value.items()}
        case tuple():
            return tuple(map(_cleaned, value))
        case str():
            return clean(value)
    return value


def _in_utc(moment: datetime, fact: msgspec.Struct, name: str) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        problem = _reading.Problem(repr(moment.isoformat()), "expected a time whose year in UTC is from 1 to 9999")
        raise _reading.unusable({form_of(type(fact)).wire_names[name]: problem}) from None
