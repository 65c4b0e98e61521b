"""
Addresses: those of the pages, links to other systems, and the times and parts of lists that an address names.

Not here: what is at an address (pages).
"""
