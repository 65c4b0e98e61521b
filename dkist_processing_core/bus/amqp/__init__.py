"""
RabbitMQ over AMQP 0.9.1. Only modules of this folder import pika.

Not here: the interface that both transports have (bus.interface), and the thread that delivers (delivery).
"""
