"""
One run as its pages show it: the run that an address names, and its rows, its graph and its events.

Not here: the pages (pages.run, pages.attempt), and what follows from a run (analysis).
"""
