"""
The runs among the events to show: the events of a run that a person names, and whether there are several runs.

Not here: the meaning of such a name (identity.short_ids), and showing events (events.show).
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from dkist_processing_core.events import Event
from dkist_processing_core.identity.short_ids import named_run, names_run

MOST_HELD = 10_000
_ENOUGH = 1000


def events_of_run(events: Iterable[Event], named: str, *, most_held: int = MOST_HELD) -> Iterator[Event]:
    """
    Yield the events of the one run that a text names.

    If the text is not its whole id, the events are held until all are read, since another run may have the same end;
    at most `most_held` of them.

    Raises:
        IdentityError: The text names several runs.
    """
    run_ids: dict[str, None] = {}
    held: list[Event] = []

    def release() -> Iterator[Event]:
        run_id = named_run(named, run_ids)
        yield from (event for event in held if event.run_id == run_id)
        held.clear()

    for event in events:
        if names_run(named, event.run_id):
            run_ids[event.run_id] = None
            held.append(event)
            if named in run_ids or len(held) > most_held:
                yield from release()
    yield from release()


def have_several_runs(events: Iterable[Event]) -> tuple[bool, Iterator[Event]]:
    """Return whether the events are about several runs, and all the events; a very long run counts as several."""
    rest = iter(events)
    held: list[Event] = []
    for event in rest:
        held.append(event)
        if event.run_id != held[0].run_id or len(held) == _ENOUGH:
            return True, chain(held, rest)
    return False, iter(held)
