"""
Kernel locks on files that another process may remove at any time.

Not here: the files (_place). The locks of journals are separate: a fork must not inherit them, but must inherit these.
"""

import fcntl
import os

from dkist_processing_core.process.trusted_files import open_file


def lock(path: str, *, exclusive: bool, create: bool = False) -> int | None:
    """
    Lock a file and return the descriptor that holds the lock, or None while another lock prevents it.

    The lock ends with the last copy of the descriptor. The locked file is never one that was removed in the meantime.

    Raises:
        OSError: The file does not exist, or cannot be opened.
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
            # It was removed while it was being locked: the next opening finds another file, creates one, or raises an
            # error.
            pass
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError) and error.filename is None:
                # flock(2) gets a descriptor, so its error does not name the file.
                error.filename = path
            raise
        os.close(descriptor)
