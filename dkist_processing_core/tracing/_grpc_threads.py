"""
The threads that gRPC's library needs: it aborts the process if it cannot start them.

The SDK's own exporter uses the library, where there is no journal of telemetry. Not here: the delivery of a journal,
which speaks gRPC without it (otlp.over_grpc).
"""

import functools
import os

from dkist_processing_core.process.thread_limits import can_start_threads

# gRPC starts one for each processor, within bounds, and a few more. The number is doubled, since launcher and task
# begin at the same time.
_THREADS = 2 * (min(max(os.cpu_count() or 16, 4), 16) + 6)


def check_threads_for_grpc() -> None:
    """
    Check that gRPC can start its threads.

    Raises:
        RuntimeError: It cannot.
    """
    if not _are_available():
        msg = (
            f"found fewer than {_THREADS} further threads, where gRPC may abort this process; raise the limit on "
            "processes (ulimit -u, pids.max), or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        )
        raise RuntimeError(msg)


@functools.cache
def _are_available() -> bool:
    return can_start_threads(_THREADS)
