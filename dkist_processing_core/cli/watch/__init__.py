"""`dkist-core watch`: the command line of the watcher."""
