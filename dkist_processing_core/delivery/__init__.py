"""
Delivery of messages: publishers append them to the journal, and one process drains an outbox to the broker.

Not here: the journal itself (journal), the broker (bus.amqp), and what an operator does with an outbox (outbox).
"""
