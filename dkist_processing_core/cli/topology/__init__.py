"""`dkist-core topology`."""
