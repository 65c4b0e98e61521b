"""
What an attempt has used: its resources, and the course of the use over its life.

The names `rchar` to `inv_ctxt` and their units are those of the trace report of Nextflow:
https://www.nextflow.io/docs/latest/reports.html. Not here: measuring (launcher), and cutting a profile (_cutting).
"""

from typing import Annotated

import msgspec

from dkist_processing_core.events import _checks
from dkist_processing_core.events._kinds import Amount, Count, Seconds, about, prepare

MOST_POINTS = 60
RESOURCES = about(
    "What the attempt has used: at its end in total; in `task.sampled` until then, and `rss`, `processes`, `threads` "
    "and `openFiles` at that moment."
)
PROFILE = (
    f"At most {MOST_POINTS} points over the life of the attempt, each an array: seconds since the start, resident "
    "bytes, processors in use, bytes read per second, bytes written per second."
)
_MOMENT = "The most at one time; in `task.sampled` the number at that moment."
_PRESSURE = (
    "The time in which any process of its control group waited for {}, in seconds, since the start: `some` of PSI. It "
    "is omitted for the root group."
)

Point = tuple[Seconds, Count, Amount, Amount, Amount]
"""A point of a profile: seconds since the start, resident bytes, processors, bytes read and written per second."""
Profile = Annotated[tuple[Point, ...], msgspec.Meta(max_length=MOST_POINTS)]


class Resources(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """
    What all processes of an attempt have used together; a value that is not known is omitted.

    Raises:
        EventError: A field has an unusable value; the message names the field and the expectation.
    """

    cpu_user_seconds: Annotated[Seconds | None, about("Processor time in user mode, in seconds.")] = None
    cpu_system_seconds: Annotated[Seconds | None, about("Processor time in the kernel, in seconds.")] = None
    rss: Annotated[
        Count | None, about("Resident memory at this moment, in bytes, as in `peakRss`; only in `task.sampled`.")
    ] = None
    peak_rss: Annotated[
        Count | None,
        about(
            "The largest resident memory of all processes together, in bytes. Memory that they share counts once "
            "where the kernel states their proportional set sizes."
        ),
    ] = None
    rchar: Annotated[Count | None, about("Bytes read by system calls, also from the page cache.")] = None
    wchar: Annotated[Count | None, about("Bytes written by system calls.")] = None
    syscr: Annotated[Count | None, about("The number of system calls that read.")] = None
    syscw: Annotated[Count | None, about("The number of system calls that write.")] = None
    read_bytes: Annotated[Count | None, about("Bytes read from storage.")] = None
    write_bytes: Annotated[Count | None, about("Bytes written to storage.")] = None
    vol_ctxt: Annotated[Count | None, about("Voluntary context switches: a process waited, for example for input.")] = (
        None
    )
    inv_ctxt: Annotated[
        Count | None, about("Involuntary context switches: the kernel gave the processor to another process.")
    ] = None
    processes: Annotated[Count | None, about(f"Processes. {_MOMENT}")] = None
    threads: Annotated[Count | None, about(f"Threads. {_MOMENT}")] = None
    open_files: Annotated[Count | None, about(f"Open files. {_MOMENT}")] = None
    cpu_pressure_seconds: Annotated[Seconds | None, about(_PRESSURE.format("a processor"))] = None
    memory_pressure_seconds: Annotated[Seconds | None, about(_PRESSURE.format("memory"))] = None
    io_pressure_seconds: Annotated[Seconds | None, about(_PRESSURE.format("input or output"))] = None
    memory_limit_bytes: Annotated[
        Count | None, about("The memory that the control group may use, in bytes; omitted if it has no limit.")
    ] = None
    cpu_limit: Annotated[
        Amount | None, about("The processors that the control group may use; omitted if it has no limit.")
    ] = None

    def __post_init__(self) -> None:
        """Check the values."""
        _checks.check(self)


prepare(Resources)
