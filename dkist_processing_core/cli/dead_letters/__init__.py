"""`dkist-core dead-letters`."""
