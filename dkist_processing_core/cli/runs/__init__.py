"""`dkist-core run`, `timeline` and `stack`."""
