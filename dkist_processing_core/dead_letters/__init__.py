"""
Dead letters in all places that keep them: the rows of inboxes, queues of the broker, and the embedded journal.

Not here: the commands about them (cli.dead_letters), and how a message becomes a dead letter (inbox, bus).
"""

from dkist_processing_core.dead_letters.letter import DeadLetter, FormerFailure, Group
from dkist_processing_core.dead_letters.place import Action, Changed, Place
from dkist_processing_core.dead_letters.places import open_places

__all__ = ["Action", "Changed", "DeadLetter", "FormerFailure", "Group", "Place", "open_places"]
