"""
One module for each revision of the tables, in the order of their numbers.

Not here: running them (migrating).
"""
