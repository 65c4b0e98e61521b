"""
Publishing and delivery: publishers append messages to the journal, and one process drains an outbox to the broker.

A reporter creates the events of one run or attempt. Not here: the journal itself (journal), the broker (bus.amqp), and
the actions of an operator on an outbox (outbox).
"""
