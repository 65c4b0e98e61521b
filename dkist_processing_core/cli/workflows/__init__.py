"""`dkist-core workflows`."""
