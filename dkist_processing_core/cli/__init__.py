"""
`dkist-core`, the command line: run a workflow, watch its events, draw its timeline, examine the bus.

Each group of commands has a folder: its module `commands` holds what a user types, the other modules what a command
does. The drawings of runs, events and graphs are in `draw`. Not here: any logic.
"""

from dkist_processing_core.cli.program import app, main

__all__ = ["app", "main"]
