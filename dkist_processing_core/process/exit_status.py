"""
The exit status of a child process, or the fact that it is lost.

The kernel keeps no status where SIGCHLD is ignored, by this program or by inheritance from its parent. A host
application may take the status first, with a handler that waits for any child. `subprocess` reports 0 in both cases.
Here a lost status is None, and never a success. Only the standard library is used, and little of that: a launcher waits
before it imports anything else. Not here: the consequences of a status (launcher, local, environments).
"""

import os

TYPE_CHECKING = False

if TYPE_CHECKING:
    import resource
    import subprocess
    from collections.abc import Callable, Sequence

LOST = "its exit status was lost: this program ignores SIGCHLD, or another part of it waits for all children"
"""The reason to report where a status is None."""
_UNKNOWN = 255


def has_ended(pid: int) -> bool:
    """Return True if a child has ended; its status is not taken, so that its pid stays reserved if possible."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def take(pid: int) -> "tuple[int | None, resource.struct_rusage | None]":
    """
    Wait for the end of a child, and return its exit status and its resource usage.

    The status is as in `subprocess`: for a signal, minus its number. Both are None where the status is lost.
    """
    try:
        _, status, usage = os.wait4(pid, 0)
    except ChildProcessError:
        return None, None
    return os.waitstatus_to_exitcode(status), usage


def wait_for(process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> int | None:
    """Wait for the end of a process of `subprocess`, and return its status; None where it is lost."""
    status, _ = take(process.pid)
    # So that `subprocess` neither waits for it again nor warns about it.
    process.returncode = _UNKNOWN if status is None else status
    return status


def output_of(command: "Sequence[str]") -> tuple[int | None, str]:
    """Run a program; return its exit status, None where it is lost, and its standard output."""
    import subprocess  # noqa: PLC0415 - as above

    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=null, stdout=subprocess.PIPE, stderr=null, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        output = process.stdout.read()
        return wait_for(process), output


def reap_orphans(own: int, ending: "Callable[[int], object]") -> "list[resource.struct_rusage]":
    """
    Take the status of every child that has ended, up to the child `own`, for which other code waits.

    As process 1 of a container, or as a subreaper, this process becomes the parent of processes whose parent has ended.

    Args:
        own: The pid of that child.
        ending: Called with each pid before its status is taken.

    Returns:
        What each of them has used.
    """
    usages: list[resource.struct_rusage] = []
    try:
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if found.si_pid == own:
                break
            ending(found.si_pid)
            usages.append(os.wait4(found.si_pid, os.WNOHANG)[2])
    except ChildProcessError:
        pass
    return usages


def fill_standard_descriptors() -> None:
    """
    Open the null device at each of the descriptors 0 to 2 that is closed.

    Otherwise the next pipe or file gets such a number, and a child uses it as its standard output stream.
    """
    try:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - the three of unistd.h
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - the standard library's signature
        os.close(descriptor)
    except OSError:
        # If no descriptor is left, no pipe can be opened either.
        return
