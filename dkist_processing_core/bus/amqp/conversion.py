"""
The conversion between pika's message properties and those of this library.

Not here: the connection that carries them, and the encoding of an event (events).
"""

import pika

from dkist_processing_core.journal.message import APP_ID, Properties

_MAX_SHORT_BYTES = 255


def to_pika(properties: Properties) -> pika.BasicProperties:
    """Return the properties of a message as pika sends them: persistent, and with the name of this library."""
    return pika.BasicProperties(
        app_id=APP_ID,
        content_type=properties.content_type,
        correlation_id=properties.correlation_id,
        delivery_mode=pika.DeliveryMode.Persistent.value,
        headers=dict(properties.headers) or None,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        type=properties.type,
    )


def from_pika(properties: pika.BasicProperties) -> Properties:
    """Return the properties of a received message, which any publisher may have set."""
    return Properties(
        message_id=text_of(properties.message_id or ""),
        content_type=text_of(properties.content_type or ""),
        type=None if properties.type is None else text_of(properties.type),
        timestamp=properties.timestamp,
        correlation_id=None if properties.correlation_id is None else text_of(properties.correlation_id),
        headers={text_of(name): value for name, value in (properties.headers or {}).items()},
    )


def text_of(short: str | bytes) -> str:
    """Return an AMQP short string as `str`: pika returns `bytes` if it is not valid UTF-8."""
    if isinstance(short, str):
        return short
    # The replacement of a byte takes three bytes, and the result may be sent again as a short string.
    return short.decode("utf-8", "replace").encode()[:_MAX_SHORT_BYTES].decode("utf-8", "ignore")
