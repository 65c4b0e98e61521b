"""
Pruning: finished rows are deleted when no repetition of their events can come.

Not here: when it is done (consumer).
"""

from sqlalchemy import Connection, text

from dkist_processing_core.inbox.order import let_go_on_if_first
from dkist_processing_core.inbox.positions import position_of, store_position
from dkist_processing_core.inbox.rules import Rules

_PRUNE = text(
    """
    DELETE FROM dkist_core_inbox WHERE seq IN (
        SELECT seq FROM dkist_core_inbox WHERE consumer = :consumer AND done_at IS NOT NULL AND done_at < :until
        ORDER BY done_at LIMIT :limit
    )
    """
)


def prune(connection: Connection, rules: Rules, limit: int, now: float) -> int:
    """
    Delete up to `limit` rows that were finished longer ago than they are kept, and return their number.

    Until when they were finished is stored: an older event is not known any more.
    """
    if rules.ordered:
        let_go_on_if_first(connection, rules.name)
    until = now - rules.kept_seconds
    pruned = connection.execute(_PRUNE, {"consumer": rules.name, "until": until, "limit": limit}).rowcount
    if pruned:
        # A clock may have been set back since the last time.
        before = position_of(connection, rules.name).pruned_until or until
        store_position(connection, rules.name, pruned_until=max(before, until))
    return pruned
