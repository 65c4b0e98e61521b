"""
A warning for a name of a task's class that is nearly one that this package reads, and so has no effect.

Only names that the class itself defines and that none of its methods uses. Not here: mistakes that are refused (tasks).
"""

import logging
from collections.abc import Iterator
from types import CodeType, FunctionType

from dkist_processing_core.task import TaskBase

logger = logging.getLogger(__name__)
_METHODS = ("pre_run", "post_run", "rollback")
_NUMBERS = ("retries", "retry_delay_seconds", "overdue_after_seconds")
# What people write who know these settings from another program.
_SYNONYMS = {
    "retry": "retries",
    "max_retries": "retries",
    "retry_delay": "retry_delay_seconds",
    "overdue_after": "overdue_after_seconds",
}
# `retrieve` is not `retries`, and neither is `entries`.
_ALIKE = 0.85


def warn_of_near_misses(task: type[TaskBase]) -> None:
    """Log one warning for each name of the class that seems to be a misspelt one of TaskBase."""
    for name, meant in near_misses(task):
        logger.warning(
            "%s.%s has no effect: no method of the task uses it, and the name that a run reads is %s",
            task.__name__, name, meant,
        )  # fmt: skip


def near_misses(task: type[TaskBase]) -> Iterator[tuple[str, str]]:
    """Yield each such name, and the one that seems to be meant."""
    # What a class above defines is a name of a library, and a task overrides it on purpose.
    inherited = {name for each in task.__mro__[1:] for name in vars(each)}
    own = {name: value for name, value in vars(task).items() if name not in inherited and not name.startswith("_")}
    found = {}
    for name, value in own.items():
        if type(value) in (FunctionType, staticmethod, classmethod):
            found[name] = _meant(name, _METHODS)
        elif type(value) in (int, float):
            found[name] = _SYNONYMS.get(name) or _meant(name, _NUMBERS)
    if any(found.values()):
        used = _names_used(task)
        yield from ((name, meant) for name, meant in found.items() if meant is not None and name not in used)


def _meant(name: str, known: tuple[str, ...]) -> str | None:
    import difflib  # noqa: PLC0415 - the process of a task imports the workflow too

    for each in known:
        if _letters(name) == _letters(each):
            return each
    return next(iter(difflib.get_close_matches(name, [each for each in known if each[0] == name[0]], 1, _ALIKE)), None)


def _letters(name: str) -> str:
    return name.replace("_", "").lower()


def _names_used(task: type[TaskBase]) -> set[str]:
    """Return the names that the methods of the class and of the classes above it use, of this package's apart."""
    functions = [value for each in task.__mro__ if each is not TaskBase for value in vars(each).values()]
    waiting = [value.__code__ for value in map(_function, functions) if value is not None]
    names: set[str] = set()
    while waiting:
        code = waiting.pop()
        names.update(code.co_names)
        waiting.extend(each for each in code.co_consts if type(each) is CodeType)
    return names


def _function(value: object) -> FunctionType | None:
    """Return the function of a method, of any kind; None for another value."""
    if type(value) is property:
        value = value.fget
    elif type(value) in (staticmethod, classmethod):
        value = value.__func__  # type: ignore[attr-defined]
    return value if type(value) is FunctionType else None
