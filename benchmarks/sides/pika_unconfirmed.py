"""
The ceiling: pika's blocking connection without confirms, done when the broker has read all and closed the connection.
"""

import pika

from benchmarks.sides.job import Job, Watch, report
from benchmarks.sides.pika_parts import parameters, properties


def main() -> None:
    """Publish the messages of the job."""
    job = Job.read()
    first, timed = ([(message, properties(message)) for message in part] for part in job.prepared())
    connection = pika.BlockingConnection(parameters(job))
    channel = connection.channel()
    for message, its_properties in first:
        channel.basic_publish(job.exchange, message.routing_key, message.body, its_properties)
    watch = Watch()
    with watch.running():
        for message, its_properties in timed:
            channel.basic_publish(job.exchange, message.routing_key, message.body, its_properties)
        connection.close()
    report(seconds=watch.seconds)


if __name__ == "__main__":
    main()
