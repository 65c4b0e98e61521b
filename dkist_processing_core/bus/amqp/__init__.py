"""
RabbitMQ over AMQP 0.9.1. Only modules of this folder import pika.

Not here: the interface of both transports (bus.interface), and the thread that delivers (delivery.drainer).
"""
