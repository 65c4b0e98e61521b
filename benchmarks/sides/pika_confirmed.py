"""The lower limit: a plain callback connection of pika with pipelined confirms and a window of unconfirmed messages."""

import itertools
from typing import TYPE_CHECKING, Any

import pika

from benchmarks.sides.job import Job, Prepared, Watch, report
from benchmarks.sides.pika_parts import parameters, properties

if TYPE_CHECKING:
    from collections.abc import Iterator


class Pipeline:
    """Publishes on one connection as fast as confirms come, and stops its loop after the last confirm."""

    def __init__(self, job: Job, window: int) -> None:
        """Connect when `run` is called."""
        self._exchange = job.exchange
        self._window = window
        self._left: Iterator[tuple[Prepared, pika.BasicProperties]] = iter(())
        self._unconfirmed: dict[int, None] = {}
        self._last_tag = 0
        self._channel: Any = None
        self._connection = pika.SelectConnection(
            parameters(job), on_open_callback=self._open_channel, on_close_callback=self._fail
        )
        self._connection.ioloop.start()

    def _open_channel(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._select_confirms)

    def _select_confirms(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_return_callback(self._fail)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._connection.ioloop.stop())

    def run(self, messages: list[tuple[Prepared, pika.BasicProperties]]) -> None:
        """Publish messages and return when all are confirmed."""
        self._left = iter(messages)
        self._fill()
        self._connection.ioloop.start()

    def _fill(self) -> None:
        for message, its_properties in itertools.islice(self._left, self._window - len(self._unconfirmed)):
            self._channel.basic_publish(
                self._exchange, message.routing_key, message.body, its_properties, mandatory=True
            )
            self._last_tag += 1
            self._unconfirmed[self._last_tag] = None

    def _on_confirm(self, frame: Any) -> None:
        if not isinstance(frame.method, pika.spec.Basic.Ack):
            self._fail(frame)
        last = frame.method.delivery_tag
        if frame.method.multiple:
            for tag in list(itertools.takewhile(lambda tag: tag <= last, self._unconfirmed)):
                del self._unconfirmed[tag]
        else:
            del self._unconfirmed[last]
        self._fill()
        if not self._unconfirmed:
            self._connection.ioloop.stop()

    def _fail(self, *what: object) -> None:
        msg = f"not delivered: {what}"
        raise RuntimeError(msg)


def main() -> None:
    """Publish the messages of the job."""
    job = Job.read()
    first, timed = ([(message, properties(message)) for message in part] for part in job.prepared())
    pipeline = Pipeline(job, job.options["window"])
    pipeline.run(first)
    watch = Watch()
    with watch.running():
        pipeline.run(timed)
    report(seconds=watch.seconds)


if __name__ == "__main__":
    main()
