"""
Whether this process can have a further thread.

Not here: the threads, each of which is optional, and what is done without it.
"""

import threading


def can_be_started(count: int = 1) -> bool:
    """Return False where so many cannot run at once: under a limit on processes, or in an interpreter that exits."""
    is_over = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=is_over.wait, name="dkist-core-probe", daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return False
    finally:
        is_over.set()
        for thread in started:
            thread.join()
    return True
