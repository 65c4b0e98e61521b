"""
The consumer of each route that delivers its notices, which are rows of the inbox in its name.

It holds no transaction while it sends. Each route has its own consumer, so that one that cannot be reached holds up
neither the others nor the counting. Not here: the kinds of receivers (webhook, mail, command).
"""

from dkist_processing_core.consumer import Consumer
from dkist_processing_core.events import Event
from dkist_processing_core.events.notice import NoticeIssued
from dkist_processing_core.notify import command, mail, webhook
from dkist_processing_core.notify.deadline import within
from dkist_processing_core.notify.routes import Route
from dkist_processing_core.settings.interface import Settings

PREFIX = "dkist-core.notify."
"""What the names of these consumers begin with; the name of the route follows."""
# About three days, by pauses of 7 to 15 minutes: a receiver may be down for a weekend.
_MOST_TRIES = 400
# The time limit of a route is that of each step, such as a connection or an answer; a receiver may send byte by byte.
_STEPS = 3


def send(route: Route, notice: NoticeIssued) -> str:
    """
    Send a notice to the receiver of a route, and return the answer as a text.

    Raises:
        NotDeliveredError, RetryLaterError, ConfigurationError: It was not delivered; a later try may succeed.
        GiveUpError: No later try will succeed.
    """
    if (hook := route.webhook) is not None:
        return within(_STEPS * hook.timeout, lambda: webhook.send(hook, notice))
    if (email := route.email) is not None:
        return within(_STEPS * email.timeout, lambda: mail.send(email, notice))
    assert route.command is not None
    return command.send(route.command, notice)


def delivery(settings: Settings, name: str, route: Route) -> Consumer:
    """Return the consumer that delivers the notices of a route."""
    consumer = Consumer(f"{PREFIX}{name}", max_tries=_MOST_TRIES, settings=settings)
    consumer.has_spans = False
    consumer.receives = False

    @consumer.on()
    def deliver(notice: Event) -> None:
        assert isinstance(notice, NoticeIssued)
        send(route, notice)

    return consumer
