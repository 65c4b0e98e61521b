"""`dkist-core run` and `timeline`."""
