"""
What an operator does with the outboxes of a host: look at them, deliver them, try again what was refused, readdress.

Not here: the thread that delivers (drain), nor how anything is shown (cli).
"""

from dkist_processing_core.outbox._delivery import Progress, drain

__all__ = ["Progress", "drain"]
