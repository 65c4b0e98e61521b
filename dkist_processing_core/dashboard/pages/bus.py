"""
The page about the bus: rates, what waits, what was set aside, consumers and their lag, the archive, dead letters.

Not here: reading the bus (bus.status), and retrying or discarding a dead letter (bus.letters).
"""

from collections import Counter

from dkist_processing_core.dashboard.asked import Asked, Page, PageError
from dkist_processing_core.dashboard.bus.letters import ACTIONS
from dkist_processing_core.dashboard.bus.status import Status
from dkist_processing_core.dashboard.drawing.columns import Columns, columns
from dkist_processing_core.dead_letters import Action, DeadLetter
from dkist_processing_core.errors import DKISTProcessingCoreError
from dkist_processing_core.events import TaskEvent

_NOT_FOUND, _UNAVAILABLE = 404, 503
_LONGEST_BODY = 4000


def page(asked: Asked) -> Page:
    """Return the page; with `group` that of a group of dead letters, with `confirm` a question before a change."""
    status = asked.site.bus_status.latest()
    group = asked.text("group")
    if group is None:
        values = {"status": status, "now": asked.now, "rates": _rates(status), "done": _done(asked), "name_of": name_of}
        return Page("Bus", "bus.html", values | {"consumers": _consumers(status), "dead": _dead(status)})
    found = _letters(asked, group)
    values = {"group": group, "letters": found, "now": asked.now, "name_of": name_of}
    action = asked.text("confirm")
    if action is None:
        return Page("Dead letters", "letters.html", values | {"body_of": body_of}, is_live=False)
    if action not in ACTIONS:
        msg = f"found confirm={action!r}, expected one of {', '.join(ACTIONS)}"
        raise PageError(msg)
    named = asked.text("letter")
    chosen = [letter for letter in found if named is None or letter.id == named]
    if not chosen:
        msg = f"there is no dead letter {named!r} in this group: it was retried or discarded meanwhile"
        raise PageError(msg, _NOT_FOUND)
    of_group = next((each.count for each in status.groups if each.id == group), len(found))
    count = of_group if named is None else 1
    values |= {"action": Action(action), "named": named or group, "count": count, "chosen": chosen}
    title = f"{action.capitalize()} {'a dead letter' if count == 1 else 'dead letters'}"
    return Page(title, "confirm.html", values, is_live=False)


def _letters(asked: Asked, group: str) -> list[DeadLetter]:
    try:
        found = asked.site.letters.of_group(group)
    except DKISTProcessingCoreError as error:
        raise PageError(str(error), _UNAVAILABLE) from error
    if not found:
        msg = f"there is no group {group!r} of dead letters: it was retried or discarded meanwhile"
        raise PageError(msg, _NOT_FOUND)
    return found


def _consumers(status: Status) -> list[str]:
    """Return the names of all consumers that are known."""
    known = set() if status.bus is None else set(status.bus.queues)
    return sorted(known | (set() if status.host is None else set(status.host.inboxes)))


def _dead(status: Status) -> Counter[str]:
    """Return the number of dead letters of each consumer."""
    found: Counter[str] = Counter(status.left_out)
    for group in status.groups:
        found[group.consumer] += group.count
    return found


def _rates(status: Status) -> Columns:
    counts = [{"running": count} for _, count in status.rates]
    titles = [f"{at:%Y-%m-%d %H:%M} UTC: {count} messages" for at, count in status.rates]
    return columns(counts, titles=titles)


def _done(asked: Asked) -> str | None:
    """Return what the change has done from which the viewer comes."""
    action, count, failed = asked.text("done"), asked.text("count") or "", asked.text("failed") or "0"
    if action not in ACTIONS or not all(each.isascii() and each.isdecimal() for each in (count, failed)):
        return None
    word = {Action.RETRY: "retried", Action.DISCARD: "discarded"}[Action(action)]
    rest = "" if failed == "0" else f"; {failed} could not be {word} and {'is' if failed == '1' else 'are'} still here"
    return f"{count} {'dead letter was' if count == '1' else 'dead letters were'} {word}{rest}"


def name_of(letter: DeadLetter) -> str:
    """Return what the message of a letter is: an event with its subject, or its size."""
    event = letter.event
    if event is None:
        size = len(letter.body) if letter.full_size is None else letter.full_size
        return f"no event, {size} bytes"
    task = f", task {event.task_name}" if isinstance(event, TaskEvent) else ""
    return f"{event.name} of {event.workflow_name}{task}, run {event.run_id}"


def body_of(letter: DeadLetter) -> str:
    """Return the beginning of the body of a letter as text."""
    text = letter.body[:_LONGEST_BODY].decode(errors="backslashreplace")
    return f"{text}…" if len(letter.body) > _LONGEST_BODY else text
