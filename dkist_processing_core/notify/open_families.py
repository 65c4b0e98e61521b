"""
The families of failures about which notices are open, which the store of runs may not have yet.

Not here: the families of the store (collect.questions).
"""

import msgspec
from sqlalchemy import Connection, select

from dkist_processing_core.notify.groups import RouteState
from dkist_processing_core.notify.tables import ROUTES
from dkist_processing_core.notify.turn import ROW_OF_TURN

_LEAST_TYPED = 4


def open_families_named(connection: Connection, named: str) -> set[str]:
    """Return the families of the groups of all routes that begin with a text of 4 or more characters."""
    if len(named) < _LEAST_TYPED:
        return set()
    states = connection.scalars(select(ROUTES.c.state).where(ROUTES.c.name != ROW_OF_TURN))
    groups = [group for state in states for group in msgspec.json.decode(state, type=RouteState).groups.values()]
    return {family for group in groups if (family := group.latest.family) is not None and family.startswith(named)}
