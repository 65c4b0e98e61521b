"""
Whether this process can have a further thread.

Not here: the threads, each of which is optional, and what is done without it.
"""

import threading


def can_be_started() -> bool:
    """Return False under a limit on processes that is reached, or in an interpreter that is about to exit."""
    try:
        threading.Thread(target=int, name="dkist-core-probe", daemon=True).start()
    except RuntimeError:
        return False
    return True
