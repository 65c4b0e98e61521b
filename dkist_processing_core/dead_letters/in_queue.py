"""
The dead letters of a named subscription to RabbitMQ: the queue `{name}.dlq`, and `{name}.dla` for archived ones.

Not here: moving messages between queues (moving), and the publication of dead letters (bus.amqp.named_queue).
"""

import json
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from dkist_processing_core.bus.topology import DEAD_LETTER_ARCHIVE_SUFFIX, DEAD_LETTERS_SUFFIX, dead_letter_archive
from dkist_processing_core.dead_letters.letter import (
    DeadLetter,
    FormerFailure,
    Group,
    digest,
    event_of,
    family_of_reason,
    grouped,
    newest,
)
from dkist_processing_core.dead_letters.moving import Moving, with_headers, without_returns
from dkist_processing_core.dead_letters.place import Action, Changed, concerns
from dkist_processing_core.errors import BusUnreachableError
from dkist_processing_core.journal.message import Message
from dkist_processing_core.settings.interface import Settings

if TYPE_CHECKING:
    from dkist_processing_core.bus.amqp.consuming import TaggedMessage
    from dkist_processing_core.bus.amqp.link import AmqpLink

_LETTER, _GROUP = "q", "gq"
_CONNECT_SECONDS = 5.0
_PREFETCH = 65535
_SILENCE_SECONDS = 5.0
_OURS = "x-dead-"
_HISTORY = "x-dead-history"
# All headers are to fit one frame.
_MAX_LIVES = 20
_MAX_REASON = 500
_NO_REASON = "its headers state no reason"


class QueueLetters:
    """The dead letters of one named subscription to RabbitMQ."""

    def __init__(self, settings: Settings, consumer: str, *, most: int | None = None) -> None:
        """
        Store the settings and the name. Nothing is connected.

        Args:
            settings: The settings of this process.
            consumer: The name of the subscription.
            most: The largest number of letters to read of each of its queues, the oldest ones; None for all. A broker
                sends whole messages, and cannot be asked for some of them.
        """
        self.where = f"the queue {consumer}{DEAD_LETTERS_SUFFIX}"
        self._settings = settings
        self._most = most
        self._consumer = consumer
        self._dead = consumer + DEAD_LETTERS_SUFFIX
        self._archived = consumer + DEAD_LETTER_ARCHIVE_SUFFIX

    def consumers(self) -> list[str]:
        """Return the name, if the broker has one of its queues."""
        with self._link() as link:
            exists = any(link.queue_load(queue) is not None for queue in (self._consumer, self._dead, self._archived))
        return [self._consumer] if exists else []

    def groups(self, *, archived: bool) -> list[Group]:
        """Return the groups, that with the newest failure first."""
        return grouped(self._read(self._archived if archived else self._dead))

    def letters(self, group: str, *, archived: bool, limit: int) -> list[DeadLetter]:
        """Return up to `limit` letters of a group, that which failed last first."""
        if not group.startswith(_GROUP):
            return []
        read = self._read(self._archived if archived else self._dead)
        return newest((letter for letter in read if letter.group == group), limit)

    def letter(self, name: str) -> DeadLetter | None:
        """Return the letter of this id, dead or archived; None if there is none here."""
        if not name.startswith(_LETTER):
            return None
        # The queues are read to their ends, so that each message returns to its place in order.
        return next(iter([letter for letter in self._read(self._dead, self._archived) if letter.id == name]), None)

    def known(self, names: Collection[str]) -> set[str]:
        """Return those of the ids that name a letter or a group here, dead or archived."""
        if not any(name.startswith((_LETTER, _GROUP)) for name in names):
            return set()
        read = self._read(self._dead, self._archived)
        return {name for letter in read for name in (letter.id, letter.group) if name in names}

    def _read(self, *queues: str) -> Iterator[DeadLetter]:
        """Yield the letters in queues; the broker puts them back in their order."""
        for queue in queues:
            with self._link() as link:
                moving = Moving(link, queue)
                for received in _messages(link, queue, self._most):
                    yield self._letter(queue, received.message)
                    moving.leave(received)
                moving.end()

    def change(self, action: Action, names: Collection[str]) -> Changed:
        """Do something with the letters and groups of these ids, or without ids with all."""
        sources = {Action.ARCHIVE: (self._dead,), Action.RESTORE: (self._archived,)}
        targets = {Action.ARCHIVE: self._archived, Action.RESTORE: self._dead}
        count, obstacles = 0, {}
        for queue in sources.get(action, (self._dead, self._archived)):
            with self._link() as link:
                if action is Action.ARCHIVE:
                    link.declare(dead_letter_archive(self._settings, self._consumer))
                moving = Moving(link, queue)
                for received in _messages(link, queue):
                    letter = self._letter(queue, received.message)
                    message = received.message
                    if not concerns(action, names, letter.id, letter.group, is_archived=letter.is_archived):
                        moving.leave(received)
                    elif action is not Action.RETRY:
                        moving.move(received, message, targets.get(action))
                    elif letter.obstacle is None:
                        moving.move(received, _retried(message, letter), self._consumer)
                    else:
                        obstacles[letter.id] = letter.obstacle
                        moving.leave(received)
                moving.end()
                count += moving.count
        return Changed(count, obstacles)

    def _link(self) -> "AmqpLink":
        from dkist_processing_core.bus.amqp.link import AmqpLink  # noqa: PLC0415 - the journal needs no pika

        return AmqpLink.open(self._settings, _CONNECT_SECONDS)

    def _letter(self, queue: str, message: Message) -> DeadLetter:
        headers = message.properties.headers
        reason, failed_at = _reason_and_time(message)
        size = headers.get("x-dead-size")
        full_size = message.full_size or (size if isinstance(size, int) else None)
        obstacle = (
            None if full_size is None else f"the broker keeps only the beginning of its body of {full_size} bytes"
        )
        original = _original(headers)
        content_type = message.properties.content_type
        return DeadLetter(
            id=_LETTER + digest(self._consumer, message.properties.message_id, failed_at, message.body),
            group=_GROUP + digest(self._consumer, family_of_reason(reason)),
            consumer=self._consumer,
            is_archived=queue == self._archived,
            reason=reason,
            event=event_of(message.body, content_type, original),
            body=message.body,
            content_type=content_type,
            headers=original,
            first_failed_at=failed_at,
            last_failed_at=failed_at,
            history=_history(headers),
            full_size=full_size,
            obstacle=obstacle,
        )


def _messages(link: "AmqpLink", queue: str, most: int | None = None) -> "Iterator[TaggedMessage]":
    """
    Yield the messages that a queue holds now, or `most` of them; messages that arrive later are not included.

    Raises:
        BusUnreachableError: Another reader has some of them, or the broker is silent.
    """
    load = link.queue_load(queue)
    if load is None or not load.messages:
        return
    # A message that is not acknowledged would hold up the others. Without a limit a quorum queue has one of 2,000.
    rest = load.messages if most is None else min(most, load.messages)
    link.consume(queue, prefetch=_PREFETCH if most is None else min(most, _PREFETCH))
    while rest:
        received = link.receive(_SILENCE_SECONDS)
        if received is None:
            msg = (
                f"{rest} of {load.messages} messages of the queue {queue} were not delivered within "
                f"{_SILENCE_SECONDS:g} s; another reader may have them: end it, or try again"
            )
            raise BusUnreachableError(msg)
        rest -= 1
        yield received


def _retried(message: Message, letter: DeadLetter) -> Message:
    """Return a message as it is retried: with the headers of the original, and the history."""
    headers = message.properties.headers
    former = {
        "reason": letter.reason[:_MAX_REASON],
        "failed": letter.last_failed_at,
        "retried": int(time.time()),
        "exchange": str(headers.get("x-dead-exchange", "")),
        "routingKey": str(headers.get("x-dead-routing-key", "")),
    }
    history = json.dumps([*_stored_history(headers), former][-_MAX_LIVES:])
    return with_headers(message, {**_original(headers), _HISTORY: history})


def _original(headers: Any) -> dict[str, Any]:
    """Return the headers that the message had before it was dead-lettered."""
    kept = without_returns(headers).items()
    return {name: value for name, value in kept if not name.startswith(_OURS) and name != "x-death"}


def _reason_and_time(message: Message) -> tuple[str, float | None]:
    headers = message.properties.headers
    reason, failed_at = headers.get("x-dead-reason"), headers.get("x-dead-time")
    # The broker's own header, if a policy dead-letters messages.
    deaths = headers.get("x-death")
    if reason is None and isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        return f"the broker dead-lettered it: {deaths[0].get('reason')}", None
    return reason if isinstance(reason, str) else _NO_REASON, _number(failed_at)


def _stored_history(headers: Any) -> list[dict[str, Any]]:
    try:
        found = json.loads(headers.get(_HISTORY, "[]"))
    except (TypeError, ValueError):
        return []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _history(headers: Any) -> tuple[FormerFailure, ...]:
    return tuple(
        FormerFailure(str(each.get("reason", "")), _number(each.get("failed")), _number(each.get("retried")))
        for each in _stored_history(headers)
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
