"""
`dkist-core`, the command line: run a workflow, watch its events, draw its timeline, examine the bus.

Each group of commands has a folder: its module `commands` declares the commands with their arguments and help texts,
and the other modules implement them. The drawings of runs, events and graphs are in `draw`. Not here: any logic.
"""

from dkist_processing_core.cli.program import app, main

__all__ = ["app", "main"]
