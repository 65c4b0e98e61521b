"""
Events for consumers: functions that act on events, a subscription, and a replay of the events that the bus still has.

Not here: the rows of a consumer that acts (inbox), the state derived from reports (runs), and the delivery by either
bus (bus).
"""

from dkist_processing_core.consumer._consumer import Consumer
from dkist_processing_core.consumer._names import check_name
from dkist_processing_core.consumer._selection import Selection, matches
from dkist_processing_core.consumer._subscribe import subscribe
from dkist_processing_core.consumer._subscription import Subscription

__all__ = ["Consumer", "Selection", "Subscription", "check_name", "matches", "subscribe"]
