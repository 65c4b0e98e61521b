"""
The check of an event's values on construction, and the declarations of its class, looked up once.

msgspec checks nothing on construction. Its conversion of all values takes a microsecond and finds whether each value is
usable as it is. Only if one is not, the values are read one by one (_reading). Not here: the declarations (_kinds,
event, facts).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec import inspect
from msgspec.structs import force_setattr

from dkist_processing_core.events import _reading
from dkist_processing_core.events._kinds import CUTS, FREE_TEXT, LIMIT, LINE, Cut, has_text, kinds_of, prepare
from dkist_processing_core.text import clean, clean_line

_StructT = TypeVar("_StructT", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """The declarations of a class's fields, by their names in Python."""

    wire_names: Mapping[str, str]
    types: Mapping[str, Any]
    defaults: Mapping[str, Any]
    shape: type[msgspec.Struct]
    """A class with the same fields, without a check."""
    texts: Mapping[str, Callable[[str], str]]
    """The fields that hold one text, each with the function that cleans it."""
    tables: tuple[str, ...]
    """The fields that hold several texts, each of which is cleaned."""
    times: tuple[str, ...]
    converted: tuple[str, ...]
    """The fields whose value may be given as one of another class, such as the text of an enumeration's member."""
    structs: Mapping[str, type[msgspec.Struct]]
    """The fields that hold an object with further fields, each with the class of the object."""
    free_text: tuple[str, ...]
    """The fields with text of people and programs, which is redacted."""
    cuts: tuple[tuple[Cut, str], ...]
    """The fields that are shortened so that the event fits the bus, in the order of their shortening."""
    limits: Mapping[str, int]
    """The fields with a limit of their own, in bytes."""
    optional: tuple[str, ...]
    """The fields without which the event still names its subject and its occurrence, except numbers."""


@cache
def form_of(kind: type[msgspec.Struct]) -> Form:
    """Return the declarations of a class of events, or of the graph's class."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    found = {field.name: kinds_of(field.type) for field in info.fields}
    types = get_type_hints(kind, include_extras=True)
    cuts = [(cut, name) for name, (_, extra) in found.items() for cut in extra.get(CUTS, ())]
    defaults = {
        field.name: field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        for field in info.fields
        if not field.required
    }

    def holding(*classes: type[inspect.Type]) -> tuple[str, ...]:
        return tuple(name for name, (parts, _) in found.items() if any(isinstance(part, classes) for part in parts))

    shape = msgspec.defstruct(kind.__name__, [(name, types[name]) for name in found], gc=False)
    prepare(shape)
    texts, times = holding(inspect.StrType), holding(inspect.DateTimeType)
    tables = tuple(name for name, (parts, _) in found.items() if name not in texts and any(map(has_text, parts)))
    return Form(
        wire_names={field.name: field.encode_name for field in info.fields},
        types={name: types[name] for name in found},
        defaults=defaults,
        shape=shape,
        texts={name: clean_line if LINE in found[name][1] else clean for name in texts},
        tables=tables,
        times=times,
        converted=tuple(name for name in found if name not in {*texts, *tables, *times}),
        structs={
            name: part.cls
            for name, (parts, _) in found.items()
            for part in parts
            if isinstance(part, inspect.StructType)
        },
        free_text=tuple(name for name, (_, extra) in found.items() if FREE_TEXT in extra),
        # The sort is stable: fields of the same order are shortened as they are declared.
        cuts=tuple(sorted(cuts, key=lambda each: each[0])),
        limits={name: extra[LIMIT] for name, (_, extra) in found.items() if extra.get(LIMIT) is not None},
        optional=tuple(
            name
            for name in holding(inspect.StrType, inspect.DictType, inspect.StructType, inspect.VarTupleType)
            if name in defaults
        ),
    )


def check(struct: msgspec.Struct) -> None:
    """
    Check the values of a new event, exchange them for equal ones of the declared classes, and clean their text.

    Raises:
        EventError: A value is unusable.
    """
    form = form_of(type(struct))
    for name, part in form.structs.items():
        if type(given := getattr(struct, name)) is dict:
            # Reporters collect facts by their names in Python, and send some of them as JSON.
            wire_names = form_of(part).wire_names
            force_setattr(struct, name, {wire_names.get(key, key): value for key, value in given.items()})
    values = _converted(struct, form)
    if values is None:
        # This is outside of the `except` block: a chained error would show the value, which may be a secret.
        values = form.shape(
            **read(type(struct), {name: getattr(struct, name) for name in form.types}, by_wire_name=False)
        )
    for name in form.converted:
        if (value := getattr(values, name)) is not None:
            force_setattr(struct, name, value)
    for name, cleaned in form.texts.items():
        text = getattr(values, name)
        if text is not None:
            # A subclass of `str` may have methods that its author wrote.
            text = text if type(text) is str else str.__str__(text)
            force_setattr(struct, name, text if text.isascii() and text.isprintable() else cleaned(text))
    for name in form.tables:
        force_setattr(struct, name, _cleaned(getattr(values, name)))
    for name in form.times:
        moment = getattr(values, name)
        force_setattr(struct, name, moment if moment is None or moment.tzinfo is UTC else _in_utc(moment, name))
    _check_marks(struct)


def _check_marks(struct: msgspec.Struct) -> None:
    """Leave out a mark that is False, since an event states only True; `truncated` was never stated otherwise."""
    if getattr(struct, "withdrawn", None) is False:
        force_setattr(struct, "withdrawn", None)
    if getattr(struct, "truncated", None) is False:
        raise _reading.unusable({"truncated": _reading.Problem("False", "expected True, or nothing")})


def emptied(checked: _StructT, names: Iterable[str]) -> _StructT:
    """Return a struct of the class of a checked one, with None in these fields, for `filled`."""
    copied = _copy_of(checked)
    for name in names:
        force_setattr(copied, name, None)
    return copied


def filled(empty: _StructT, values: Mapping[str, Any]) -> _StructT:
    """Return a struct with these values, which must be as the check leaves them, from one with None in their fields."""
    copied = _copy_of(empty)
    for name, value in values.items():
        if value is not None:
            force_setattr(copied, name, value)
    return copied


def _copy_of(struct: _StructT) -> _StructT:
    # It is not checked, and has no attributes but its fields.
    copied: _StructT = msgspec.Struct.__copy__(struct)  # type: ignore[attr-defined] # msgspec declares it nowhere
    return copied


def _converted(struct: msgspec.Struct, form: Form) -> Any:
    """Return the values of a struct in the declared types, or None if one must be read with more tolerance."""
    try:
        return msgspec.convert(struct, form.shape, from_attributes=True)
    except (msgspec.ValidationError, UnicodeError, OverflowError, RecursionError):
        return None


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """Return a value with each text in it redacted, except the names in a table."""
    match value:
        case str():
            return redact(value)
        case dict():
            return {name: redacted(item, redact) for name, item in value.items()}
        case tuple():
            return tuple(redacted(item, redact) for item in value)
    return value


def read(kind: type[msgspec.Struct], given: Mapping[str, object], *, by_wire_name: bool = True) -> dict[str, Any]:
    """
    Return the values of all fields of an event, by their names in Python, read one by one.

    An error names the fields as on the wire or, without `by_wire_name`, as in Python.

    Raises:
        EventError: A required value is missing, or one is unusable.
    """
    form = form_of(kind)
    values, problems = _reading.read(form.types, given, form.defaults)
    if problems:
        names = form.wire_names if by_wire_name else dict(zip(problems, problems, strict=True))
        raise _reading.unusable({names[name]: problem for name, problem in problems.items()})
    return values


def _cleaned(value: Any) -> Any:
    """Return a table or a list of texts with each text cleaned; a graph has already cleaned its texts."""
    match value:
        case dict():
            return {_cleaned(name): _cleaned(item) for name, item in value.items()}
        case tuple():
            return tuple(map(_cleaned, value))
        case str():
            return clean(str.__str__(value))
    return value


def _in_utc(moment: datetime, name: str) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        problem = _reading.Problem(repr(moment.isoformat()), "expected a time whose year in UTC is from 1 to 9999")
        raise _reading.unusable({name: problem}) from None
