"""`dkist-core doctor`."""
