"""
The names that a subscription may have.

Not here: the queue or the position that a bus stores under a name (bus).
"""

from datetime import datetime

from dkist_processing_core.bus.topology import ARCHIVE_QUEUE, DEAD_LETTER_ARCHIVE_SUFFIX, DEAD_LETTERS_SUFFIX
from dkist_processing_core.events import RecipeRunFailureMessage
from dkist_processing_core.text import show

# AMQP's limit for the name of a queue.
_MAX_NAME_BYTES = 255


def check_name(name: str, *, replay: bool | datetime = False) -> None:
    """Raise a ValueError for a name that is invalid on one of the buses: both must accept the same program."""
    expected = None
    if replay:
        expected = "no name: a replay begins with old events, a name at its stored position; use only one of them"
    elif not isinstance(name, str) or not name or not name.isprintable():
        expected = "one or more printable characters"
    elif len((name + DEAD_LETTERS_SUFFIX).encode()) > _MAX_NAME_BYTES:
        expected = f"at most {_MAX_NAME_BYTES - len(DEAD_LETTERS_SUFFIX)} bytes"
    elif name in (ARCHIVE_QUEUE, RecipeRunFailureMessage.queue):
        expected = "another name: this queue has its own use"
    elif name.startswith("amq.") or name.endswith((DEAD_LETTERS_SUFFIX, DEAD_LETTER_ARCHIVE_SUFFIX)):
        endings = f"'{DEAD_LETTERS_SUFFIX}' or '{DEAD_LETTER_ARCHIVE_SUFFIX}'"
        expected = f"a name that does not begin with 'amq.' or end with {endings}, which are reserved"
    if expected is not None:
        msg = f"the subscription's name is {show(name)}, expected {expected}"
        raise ValueError(msg)
