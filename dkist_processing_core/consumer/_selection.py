"""
The selection of the events that a consumer wants.

Not here: their delivery (_subscription).
"""

from dataclasses import dataclass

from dkist_processing_core.events import EVENT_CLASSES, Event, TaskEvent
from dkist_processing_core.journal.message import word


@dataclass(frozen=True, slots=True)
class Selection:
    """The events that a consumer wants; a field that is left out does not restrict them."""

    names: tuple[str, ...] = ()
    workflow: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        """Raise a ValueError for a name that no event has: such a subscription would never receive any."""
        known = [event_class.name for event_class in EVENT_CLASSES]
        for name in self.names:
            if name not in known:
                msg = f"there is no event {name!r}; expected one of {', '.join(known)}"
                raise ValueError(msg)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The topic patterns that match at least the wanted events."""
        workflow = "*" if self.workflow is None else word(self.workflow)
        tail = "#" if self.task is None else word(self.task)
        names = self.names or (("task.*",) if self.task is not None else ("*.*",))
        return tuple(f"{name}.{workflow}.{tail}" for name in names)

    def matches(self, event: Event) -> bool:
        """Return True if an event is wanted; names are compared again, since a routing key holds them shortened."""
        return (
            (not self.names or event.name in self.names)
            and self.workflow in (None, event.workflow_name)
            and (self.task is None or (isinstance(event, TaskEvent) and event.task_name == self.task))
        )
