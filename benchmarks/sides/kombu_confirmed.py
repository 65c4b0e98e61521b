"""kombu with `confirm_publish`: each message waits for its confirm, which is kombu's only way."""

from kombu import Connection

from benchmarks.sides.job import Job, Prepared, Watch, report


def main() -> None:
    """Publish the messages of the job."""
    job = Job.read()
    first, timed = job.prepared()
    with Connection(
        hostname=job.host,
        port=job.port,
        userid=job.username,
        password=job.password,
        virtual_host=job.vhost,
        transport="pyamqp",
        transport_options={"confirm_publish": True},
    ) as connection:
        producer = connection.Producer(auto_declare=False)

        def publish(messages: list[Prepared]) -> None:
            for message in messages:
                producer.publish(
                    message.body,
                    exchange=job.exchange,
                    routing_key=message.routing_key,
                    content_type=message.content_type,
                    content_encoding="utf-8",
                    delivery_mode="persistent",
                    mandatory=True,
                    correlation_id=message.correlation_id,
                    message_id=message.message_id,
                    timestamp=message.timestamp,
                    type=message.type,
                )

        publish(first)
        watch = Watch()
        with watch.running():
            publish(timed)
    report(seconds=watch.seconds)


if __name__ == "__main__":
    main()
