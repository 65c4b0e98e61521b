"""
A pika script that does not use our package: prints the messages of a queue, one JSON object a line.

    python plain_reader.py declare|read PORT VHOST USER PASSWORD
"""

import base64
import json
import sys

import pika


def main(action: str, port: str, vhost: str, user: str, password: str) -> None:
    """
    Bind a queue to all events, or read it until it is empty.
    """
    connection = pika.BlockingConnection(
        pika.ConnectionParameters("127.0.0.1", int(port), vhost, pika.PlainCredentials(user, password))
    )
    channel = connection.channel()
    if action == "declare":
        channel.exchange_declare("workflow.events.x", "topic", durable=True)
        channel.queue_declare("plain.q", durable=True)
        channel.queue_bind("plain.q", "workflow.events.x", "#")
    else:
        while True:
            method, properties, body = channel.basic_get("plain.q", auto_ack=True)
            if method is None:
                break
            shown = {
                "routing_key": method.routing_key,
                "content_type": properties.content_type,
                "message_id": properties.message_id,
                "body": base64.b64encode(body).decode(),
            }
            print(json.dumps(shown))  # noqa: T201 - the output of the program
    connection.close()


main(*sys.argv[1:])
