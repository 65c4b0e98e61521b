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
    """The text found in a field, and the reason why it cannot be the field's value."""

    found: str
    reason: str


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
            found, info = next(_wrong(given[name], inspect.type_info(kind)), (given[name], inspect.type_info(kind)))
            expected = "an integer or decimal digits, from 0 to 2^63 - 1" if name == _RUN else _expected(info)
            problems[name] = Problem(show(found), f"expected {expected}")
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


def _wrong(value: object, info: inspect.Type) -> Iterator[tuple[object, inspect.Type]]:
    """Yield each part of a table or list that its kind does not take, with the kind; else the whole value."""
    match info:
        case inspect.Metadata(type=inner):
            yield from _wrong(value, inner)
        case inspect.UnionType(types=(kind, inspect.NoneType())):
            yield from _wrong(value, kind)
        case inspect.DictType(value_type=kind) if isinstance(value, dict):
            for part in value.values():
                yield from _wrong(part, kind)
        case inspect.StrType() if isinstance(value, str):
            return
        case inspect.FloatType() if _is_number(value, info):
            return
        case _:
            yield value, info


def _is_number(value: object, info: inspect.FloatType) -> bool:
    return type(value) in (int, float) and (info.ge is None or value >= info.ge)  # type: ignore[operator] # a number


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
            return f"an object with {' and '.join(field.encode_name for field in fields)}"
        case inspect.VarTupleType() | inspect.TupleType():
            return "an array"
    return "a text"


def _limit(number: int | None) -> str:
    return {MAX_NUMBER: "2^63 - 1", -MAX_NUMBER: "-2^63 + 1"}.get(number or 0, str(number))


def unusable(problems: Mapping[str, Problem]) -> EventError:
    """Return the error about the fields without a usable value, by their names on the wire."""
    return EventError(
        "; ".join([f"{name}: {problem.reason}" for name, problem in problems.items()][:_MAX_PROBLEMS]),
        "; ".join([f"{name}: found {found}, {reason}" for name, (found, reason) in problems.items()][:_MAX_PROBLEMS]),
    )
