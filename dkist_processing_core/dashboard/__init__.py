"""
The dashboard: pages about runs and the bus, rendered from the store of runs and kept live.

Not here: keeping the store and asking it (collect), and the command (cli.dashboard).
"""
