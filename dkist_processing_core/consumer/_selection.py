"""
The selection of the events that a consumer wants, by names or patterns of names.

Not here: their delivery (_subscription).
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from dkist_processing_core.events import EVENT_CLASSES, Event, TaskEvent
from dkist_processing_core.journal.message import word
from dkist_processing_core.text import show

_TASK_EVENTS = tuple(event_class.name for event_class in EVENT_CLASSES if issubclass(event_class, TaskEvent))


@dataclass(frozen=True, slots=True)
class Selection:
    """
    The events that a consumer wants; a field that is left out does not restrict them.

    In each name `*` matches any text and `?` any one character.
    """

    names: tuple[str, ...] = ()
    workflow: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        """Raise a ValueError for a selection that no event can match: a consumer would wait for it for ever."""
        known = [event_class.name for event_class in EVENT_CLASSES]
        for name in self.names:
            if not isinstance(name, str) or not any(matches(name, each) for each in known):
                msg = f"there is no event {show(name)}; expected one of {', '.join(known)}"
                raise ValueError(msg)
        for what, wanted in (("workflow", self.workflow), ("task", self.task)):
            if wanted is not None and (not isinstance(wanted, str) or not wanted):
                msg = f"{what} is {show(wanted)}, expected the name of a {what}, or a pattern of names"
                raise ValueError(msg)
        without_task = [name for name in self.names if not any(matches(name, each) for each in _TASK_EVENTS)]
        if self.task is not None and without_task:
            msg = (
                f"task is {show(self.task)}, and {without_task[0]} has no task; expected events of tasks, "
                f"one or more of {', '.join(_TASK_EVENTS)}"
            )
            raise ValueError(msg)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The topic patterns that match at least the wanted events."""
        workflow = "*" if self.workflow is None else _word(self.workflow)
        tail = "#" if self.task is None else _word(self.task)
        names = self.names or (("task.*",) if self.task is not None else ("*.*",))
        return tuple(dict.fromkeys(f"{topic}.{workflow}.{tail}" for name in names for topic in _topics(name)))

    @property
    def is_everything(self) -> bool:
        """Whether every event matches."""
        return not self.names and self.workflow is None and self.task is None

    def matches(self, event: Event) -> bool:
        """Return True if an event is wanted; names are compared again, since a routing key holds them shortened."""
        return (
            (not self.names or event.name in self.names or any(matches(name, event.name) for name in self.names))
            and (self.workflow is None or matches(self.workflow, event.workflow_name))
            and (self.task is None or (isinstance(event, TaskEvent) and matches(self.task, event.task_name)))
        )


def matches(pattern: str, name: str) -> bool:
    """
    Return True if a name matches a pattern: `*` matches any text, `?` any one character, others themselves.

    >>> matches("l0_to_l1_*", "l0_to_l1_visp"), matches("l0_to_l1_*", "l1_to_l2_visp")
    (True, False)
    """
    return pattern == name or (_is_pattern(pattern) and _compiled(pattern).fullmatch(name) is not None)


def _is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)


def _word(name: str) -> str:
    """Return the word of a topic pattern for a name: a broker compares whole words only."""
    return "*" if _is_pattern(name) else word(name)


def _topics(name: str) -> list[str]:
    """Return topic patterns for a name of events: such as `task.*`, or the name of each event that matches."""
    if all(part == "*" or not _is_pattern(part) for part in name.split(".")) and name.count(".") == 1:
        return [name]
    return [event_class.name for event_class in EVENT_CLASSES if matches(name, event_class.name)]
