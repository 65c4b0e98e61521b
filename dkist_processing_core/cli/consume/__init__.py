"""`dkist-core consume`."""
