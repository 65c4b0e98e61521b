"""
Kernel locks on files that another process may remove at any time.

Not here: on which files (_place). The locks of journals are kept apart: they must not go over a fork, these must.
"""

import fcntl
import os

from dkist_processing_core.trusted import open_file


def lock(path: str, *, exclusive: bool, create: bool = False) -> int | None:
    """
    Lock a file and return the descriptor that holds the lock; None while another's lock is in the way.

    The lock ends with the last copy of the descriptor. It is never one on a file that is not there any more.

    Raises
    ------
    OSError
        where there is no such file, or it cannot be opened.

    """
    access = os.O_RDWR if exclusive else os.O_RDONLY
    while True:
        descriptor = open_file(path, access | (os.O_CREAT if create else 0), sets_mode=create, shares=False)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            # Removed while it was being locked: the next opening finds another, makes one, or says so.
            pass
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError) and error.filename is None:
                # flock(2) is told a descriptor: nobody could say afterwards of which file the error is.
                error.filename = path
            raise
        os.close(descriptor)
