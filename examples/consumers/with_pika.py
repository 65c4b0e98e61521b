"""
Print each event as one line, in Python with pika, without dkist-processing-core.

    pip install pika
    AMQP_URL=amqp://user:password@broker.example:5672/%2F python with_pika.py announcer 'task.failed.#'
"""

import json
import os
import signal
import sys

import pika

# As `dkist-core topology apply --consumer` declares the queue: a slow consumer loses only its own oldest events.
ARGUMENTS = {"x-queue-type": "classic", "x-max-length": 100_000, "x-overflow": "drop-head", "x-expires": 604_800_000}
REMEMBERED = 10_000


def main(queue: str, *patterns: str) -> None:
    """Bind a queue to the events whose routing keys match, and print them until SIGTERM or Ctrl-C."""
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments=ARGUMENTS)
    for pattern in patterns or ("#",):
        channel.queue_bind(queue, "workflow.events.x", pattern)
    channel.basic_qos(prefetch_count=100)
    seen: dict[str, None] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: connection.add_callback_threadsafe(channel.cancel))
    for method, _, body in channel.consume(queue):
        try:
            event = json.loads(body)
            # The task and the engine may report one occurrence, and the broker may deliver a message again: the id is
            # the same. A consumer with effects keeps the ids in its database.
            if event["id"] not in seen:
                show(event["type"], event["data"])
            seen[event["id"]] = None
        except (ValueError, LookupError, TypeError) as error:
            print(f"not an event: {error}", file=sys.stderr)
        if len(seen) > REMEMBERED:
            del seen[next(iter(seen))]
        channel.basic_ack(method.delivery_tag)
    connection.close()


def show(kind: str, data: dict[str, object]) -> None:
    """Print one event. Without flush, the line would be lost if the process is killed after the acknowledgement."""
    task = f"/{data['taskName']}" if "taskName" in data else ""
    reason = f": {data['errorType']}: {data['message']}" if "errorType" in data else ""
    print(f"{kind} {data['workflowName']}{task}{reason}", flush=True)


main(*sys.argv[1:])
