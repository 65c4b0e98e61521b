"""
The process itself: signals and termination, forks, threads, descriptors, memory, exit statuses, files it can trust.

Each module needs the standard library alone. Not here: anything that knows events, journals or tasks.
"""
