"""
The log lines of pika: which of them appear in a process with a link.

Not here: the lines of this library about a connection (test_amqp).
"""

import subprocess
import sys

PROGRAM = """
import logging
from dkist_processing_core.bus.amqp.link import AmqpLink
print([name for name, each in logging.root.manager.loggerDict.items() if getattr(each, "filters", None)])
"""


def test_the_import_of_a_link_changes_no_logger() -> None:
    """Another user of pika in this process keeps its log lines until a link of this library is opened."""
    shown = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=300)

    assert shown.stdout == "[]\n"
