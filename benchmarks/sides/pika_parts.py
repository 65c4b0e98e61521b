"""Functions shared by the sides that publish with pika itself."""

import pika

from benchmarks.sides.job import Job, Prepared


def parameters(job: Job) -> pika.ConnectionParameters:
    """Return the connection parameters of the job's broker."""
    return pika.ConnectionParameters(
        host=job.host,
        port=job.port,
        virtual_host=job.vhost,
        credentials=pika.PlainCredentials(job.username, job.password),
    )


def properties(message: Prepared) -> pika.BasicProperties:
    """Return the properties that every side sends with a message."""
    return pika.BasicProperties(
        content_type=message.content_type,
        correlation_id=message.correlation_id,
        delivery_mode=pika.DeliveryMode.Persistent.value,
        message_id=message.message_id,
        timestamp=message.timestamp,
        type=message.type,
    )
