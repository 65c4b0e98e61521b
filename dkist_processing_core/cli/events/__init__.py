"""`dkist-core events`."""
