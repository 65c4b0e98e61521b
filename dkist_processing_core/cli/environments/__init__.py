"""`dkist-core environments`."""
