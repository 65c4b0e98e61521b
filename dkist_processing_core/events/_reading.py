"""
Foreign values, read one by one: accepted if their meaning is clear, and otherwise each reported as a problem.

Slow and exact, for values that the fast ways (_checks, codec) cannot take: numbers as text, lone surrogates, wrong
values.
"""

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from dkist_processing_core.errors import EventError, IdentityError
from dkist_processing_core.events._kinds import MAX_CAUSE, Cause, kinds_of
from dkist_processing_core.identity import MAX_NUMBER, parse_recipe_run_id
from dkist_processing_core.text import clean, show, whole_number

_MAX_PROBLEMS = 5
_RUN = "recipe_run_id"
# A time in seconds is at most this; a timestamp of AMQP 1.0, in milliseconds, is above it from August 1970 on.
_MOST_SECONDS = 2 * 10**10


class Problem(NamedTuple):
    """The text found in a field, the reason why it cannot be the field's value, and the part of the value."""

    found: str
    reason: str
    part: str = ""


def read(
    types: Mapping[str, Any], given: Mapping[str, object], defaults: Mapping[str, object]
) -> tuple[dict[str, Any], dict[str, Problem]]:
    """Return the values as the fields hold them, and the problem of each field that has none."""
    values: dict[str, Any] = {}
    problems: dict[str, Problem] = {}
    for name, kind in types.items():
        if name not in given:
            if name in defaults:
                values[name] = defaults[name]
            else:
                problems[name] = Problem("nothing", f"expected {_expected(inspect.type_info(kind))}")
            continue
        try:
            values[name] = _value(name, kind, given[name])
        except (msgspec.ValidationError, IdentityError, OverflowError, RecursionError, ValueError):
            info = inspect.type_info(kind)
            part, found, info = next(_wrong(given[name], info), ("", given[name], info))
            expected = "an integer or decimal digits, from 0 to 2^63 - 1" if name == _RUN else _expected(info)
            problems[name] = Problem(show(found), f"expected {expected}", part)
    return values, problems


def _value(name: str, kind: Any, given: object) -> Any:
    if name == _RUN and given is not None:
        return parse_recipe_run_id(given)
    kinds, _ = kinds_of(inspect.type_info(kind))
    value = _plain(given)
    if any(isinstance(each, inspect.DateTimeType) for each in kinds):
        return _moment(value, kind)
    if isinstance(value, str) and value.strip().lower() == "null" and not _takes_text(kinds):
        # The conversion would take it for None.
        raise msgspec.ValidationError
    if type(value) is int and abs(value) > MAX_NUMBER and any(isinstance(each, inspect.FloatType) for each in kinds):
        value = float(value)
    return msgspec.convert(value, kind, strict=False)


def _takes_text(kinds: list[inspect.Type]) -> bool:
    return any(isinstance(each, inspect.StrType | inspect.EnumType | inspect.LiteralType) for each in kinds)


def _moment(value: Any, kind: Any) -> Any:
    """Return a time from its text, or from its seconds or milliseconds since 1970."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if type(value) in (int, float) and abs(value) > _MOST_SECONDS:
        value = value / 1000
    if isinstance(value, str):
        # Parts of a microsecond are cut, as everywhere in Python.
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value)
    return msgspec.convert(value, kind, strict=False)


def _plain(value: Any) -> Any:  # noqa: PLR0911 - a table of the classes, a line each
    """Return a value of a subclass, or of a library of tables, as one of Python's own classes; its text is cleaned."""
    match value:
        case None | bool() | msgspec.Struct() | Cause():
            return value
        case str():
            return clean(str.__str__(value))
        case float():
            return float.__float__(value)
        case datetime():
            return datetime.combine(datetime.date(value), datetime.timetz(value))
        case dict():
            return {_plain(name): _plain(item) for name, item in dict.items(value)}
        case list() | tuple():
            return [_plain(item) for item in value]
    number = whole_number(value)
    return value if number is None else number


def _wrong(value: object, info: inspect.Type, place: str = "") -> Iterator[tuple[str, object, inspect.Type]]:
    """Yield each part of a value that its kind does not take, with its place and its kind; else the whole value."""
    match info:
        case inspect.Metadata(type=inner):
            yield from _wrong(value, inner, place)
        case inspect.UnionType(types=(kind, inspect.NoneType())):
            if value is not None:
                yield from _wrong(value, kind, place)
        case _ if (parts := _parts(value, info)) is not None:
            for inside, part, kind in parts:
                yield from _wrong(part, kind, f"{place}{inside}")
        case _ if not _is_taken(value, info):
            yield place, value, info


def _parts(value: object, info: inspect.Type) -> Iterator[tuple[str, object, inspect.Type]] | None:
    """Return the parts of a value, with their places in it and their kinds; None for a value without parts."""
    match info:
        case inspect.DictType(value_type=kind) if isinstance(value, dict):
            return (("", part, kind) for part in value.values())
        case inspect.StructType(fields=fields) if isinstance(value, dict):
            stated = [field for field in fields if field.required or field.encode_name in value]
            return ((f".{each.encode_name}", value.get(each.encode_name), each.type) for each in stated)
        case inspect.VarTupleType(item_type=kind, max_length=most) if isinstance(value, list | tuple):
            parts = ((f"[{place}]", part, kind) for place, part in enumerate(value))
            return parts if most is None or len(value) <= most else None
        case inspect.TupleType(item_types=kinds) if isinstance(value, list | tuple) and len(value) == len(kinds):
            return ((f"[{place}]", *each) for place, each in enumerate(zip(value, kinds, strict=True)))
    return None


def _is_taken(value: object, info: inspect.Type) -> bool:
    match info:
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.FloatType(ge=least, le=most) | inspect.IntType(ge=least, le=most):
            with contextlib.suppress(msgspec.ValidationError):
                number = msgspec.convert(value, int if isinstance(info, inspect.IntType) else float, strict=False)
                return (least is None or least <= number) and (most is None or number <= most)
    return False


def _expected(info: inspect.Type) -> str:  # noqa: C901, PLR0911, PLR0912 - a table of the kinds, a line each
    """Return a description of the values that a field takes."""
    match info:
        case inspect.Metadata(type=inner):
            return _expected(inner)
        case inspect.UnionType(types=types):
            if any(isinstance(kind, inspect.FloatType) and kind.ge != 0 for kind in types):
                # An integer is also accepted.
                return "a number"
            return " or ".join(dict.fromkeys(_expected(kind) for kind in types if kind != inspect.NoneType()))
        case inspect.IntType(ge=least, le=most):
            return f"an integer from {_limit(least)} to {_limit(most)}"
        case inspect.FloatType(ge=0):
            return "a number from 0"
        case inspect.FloatType():
            return "a number"
        case inspect.BoolType():
            return "true or false"
        case inspect.DateTimeType():
            return "a time with its zone, as RFC 3339 writes it"
        case inspect.EnumType(cls=kind) if kind is Cause:
            return f"a text of at most {MAX_CAUSE} characters"
        case inspect.EnumType(cls=kind):
            return f"one of {', '.join(repr(member.value) for member in kind)}"
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(repr, values))}"
        case inspect.DictType(value_type=value):
            return f"an object whose values are each {_expected(value)}"
        case inspect.StructType(fields=fields):
            required = [field.encode_name for field in fields if field.required]
            return f"an object with {' and '.join(required)}" if required else "an object"
        case inspect.VarTupleType(max_length=int(most)):
            return f"an array of at most {most}"
        case inspect.TupleType(item_types=types):
            return f"an array of {len(types)}"
        case inspect.VarTupleType():
            return "an array"
    return "a text"


def _limit(number: int | None) -> str:
    return {MAX_NUMBER: "2^63 - 1", -MAX_NUMBER: "-2^63 + 1"}.get(number or 0, str(number))


def unusable(problems: Mapping[str, Problem]) -> EventError:
    """Return the error about the fields without a usable value, by their names on the wire."""
    return EventError(
        "; ".join([f"{name}{each.part}: {each.reason}" for name, each in problems.items()][:_MAX_PROBLEMS]),
        "; ".join(
            [f"{name}{each.part}: found {each.found}, {each.reason}" for name, each in problems.items()][:_MAX_PROBLEMS]
        ),
    )
