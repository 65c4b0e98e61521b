"""
Publishing and delivery: publishers append messages to the journal, and one process drains an outbox to the broker.

Not here: the journal itself (journal), the broker (bus.amqp), and an operator's actions on an outbox (outbox).
"""
