"""
The runs among the events to show: the events of a run that a person names, and whether there are several runs.

Not here: the meaning of such a name (identity.short_ids), and showing events (events.show).
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from dkist_processing_core.events import Event
from dkist_processing_core.identity import Run
from dkist_processing_core.identity.short_ids import is_unique, names_run, one_named_run

MOST_HELD = 10_000
_ENOUGH = 1000


def events_of_run(
    events: Iterable[Event], named: str, *, remark: Callable[[str], None] | None = None, most_held: int = MOST_HELD
) -> Iterator[Event]:
    """
    Yield the events of the one run that a text names.

    Unless the text is an id that was drawn at random, the events are held until all are read, since another run may
    have the same name; at most `most_held` of them. Afterwards that run is followed; only a run of which the text is
    the whole id takes its place.

    Args:
        events: The events of any runs.
        named: The text.
        remark: It is called once, with a text about another run of that name that comes too late to be an error.
        most_held: How many events are held.

    Raises:
        IdentityError: The text names several runs among the events that were held.
    """
    held: list[Event] = []
    chosen: tuple[str, str] | None = None

    def release() -> Iterator[Event]:
        nonlocal chosen
        run = one_named_run(named, (event.run for event in held))
        if run is not None:
            chosen = _key(run)
        yield from (each for each in held if _key(each.run) == chosen)
        held.clear()

    for event in (each for each in events if names_run(named, each.run_id)):
        if chosen is None:
            held.append(event)
            if is_unique(named, event.run_id) or len(held) > most_held:
                yield from release()
            continue
        rival = _key(event.run)
        if rival != chosen:
            if event.run_id == named != chosen[1]:
                rival, chosen = chosen, rival
            if remark is not None:
                remark(_remark_about(named, chosen, rival))
                remark = None
        if _key(event.run) == chosen:
            yield event
    yield from release()


def _key(run: Run) -> tuple[str, str]:
    return run.workflow_name, run.run_id


def _remark_about(named: str, chosen: tuple[str, str], rival: tuple[str, str]) -> str:
    (workflow, run_id), (other_workflow, other_id) = chosen, rival
    way_out = "give more of the id" if run_id != other_id else "add --workflow"
    shown = f"{run_id} of {workflow} is shown, {other_id} of {other_workflow} is not"
    return f"{named!r} names several runs: {shown}; {way_out}"


def have_several_runs(events: Iterable[Event]) -> tuple[bool, Iterator[Event]]:
    """Return whether the events are about several runs, and all the events; a very long run counts as several."""
    rest = iter(events)
    held: list[Event] = []
    for event in rest:
        held.append(event)
        if _key(event.run) != _key(held[0].run) or len(held) == _ENOUGH:
            return True, chain(held, rest)
    return False, iter(held)
