"""
The display of settings: the message about wrong ones, and their values with secrets masked.

Not here: reading them (configuration, without_pydantic).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from dkist_processing_core.settings.kinds import WrongPartError
from dkist_processing_core.text import REDACTED, is_secret_name, redact

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_SHOWN = 120
_NOT_SHOWN = "a value that is not shown"


def explanation(
    error: ValidationError | SettingsError,
    fields: Mapping[str, FieldInfo],
    values: Mapping[str, Any],
    environ: Mapping[str, str],
) -> str:
    """
    Return one message that names every wrong setting.

    Args:
        error: the error of pydantic.
        fields: the fields of the settings class.
        values: the values that a caller passed, which outrank the variables.
        environ: the variables that were read.

    """
    if isinstance(error, SettingsError):
        return f"the settings cannot be read: {redact(str(error))}"
    problems = {problem["loc"][:1]: problem for problem in reversed(error.errors())}
    return "; ".join(_complaint(problem, fields, values, environ) for problem in reversed(problems.values()))


def _complaint(
    problem: "ErrorDetails", fields: Mapping[str, FieldInfo], values: Mapping[str, Any], environ: Mapping[str, str]
) -> str:
    objection = redact(problem["msg"].removeprefix("Value error, "))
    if not problem["loc"]:
        # A subclass's check of several fields together names no single field.
        return objection
    name = str(problem["loc"][0])
    variable = name.upper()
    expected = expectation(fields.get(name))
    part = problem.get("ctx", {}).get("error")
    if isinstance(part, WrongPartError):
        found = redact(part.found)
        found = _NOT_SHOWN if _may_hold_secret(variable, found) else _clipped(found)
        return f"{variable}: found {found}, expected {part.expected}"
    # Only `problem` holds a value that was read from the file `.env`.
    found = values[name] if name in values else environ.get(variable) or environ.get(name) or problem["input"]
    text = redact(str(found))
    if _may_hold_secret(variable, text):
        return f"{variable}: found {_NOT_SHOWN}, expected {expected or 'another'}"
    return f"{variable}: found {_clipped(text)!r}, {f'expected {expected}' if expected else f'but {objection}'}"


def _may_hold_secret(variable: str, text: str) -> bool:
    # A password may precede an @, and its start is unknown. The end of a password in JSON is also unknown.
    return is_secret_name(variable) or is_secret_name(text) or "@" in text


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def masked(name: str, value: Any) -> Any:
    """Return the value of a setting without secrets; a client's list of credentials has secrets inside."""
    if is_secret_name(name):
        return REDACTED
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        return {key: masked(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(name, part) for part in value]
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


def expectation(field: FieldInfo | None) -> str | None:
    """Return the description of the values that a field expects; None for a field of a subclass without one."""
    extra = None if field is None else field.json_schema_extra
    return str(extra["expected"]) if isinstance(extra, dict) and "expected" in extra else None
