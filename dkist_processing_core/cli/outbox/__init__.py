"""`dkist-core outbox`."""
