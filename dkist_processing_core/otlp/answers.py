"""
What a collector's answer means, over HTTP and over gRPC.

Most answers say that everything was accepted, and are recognised by their bytes: the import of protobuf, by which the
others are read, takes longer than a short task. Not here: sending (over_http, over_grpc), and the classes of the
messages (messages).
"""

from dkist_processing_core.otlp.destination import Signal
from dkist_processing_core.otlp.outcome import Delivered
from dkist_processing_core.text import clean_line

PROTOBUF, _JSON = "application/x-protobuf", "application/json"
_LONGEST_MESSAGE = 200
# A response of each signal: without `partial_success`, or with an empty one.
_SUCCESSES = frozenset({b"", b"\x0a\x00"})


def accepted(signal: Signal, answer: bytes) -> Delivered:
    """Return what a collector has accepted, by its answer to a successful request."""
    # If it cannot be read: the request was successful by its status, which decides.
    return _accepted(signal, answer) or Delivered(message="its answer cannot be read")


def accepted_by(signal: Signal, answer: bytes, content_type: str) -> Delivered | None:
    """
    Return what an HTTP server has accepted, by its answer with a status of success; None if it is no collector.

    A proxy, or a web server at a wrong path, answers with a page. A collector answers in the encoding of the request;
    JSON and an empty answer are tolerated.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not answer or kind == PROTOBUF:
        return accepted(signal, answer)
    return None if kind not in {"", _JSON} else _accepted(signal, answer, is_json=kind == _JSON)


def _accepted(signal: Signal, answer: bytes, *, is_json: bool = False) -> Delivered | None:
    if answer in _SUCCESSES:
        return Delivered()
    from dkist_processing_core.otlp.messages import partial_success  # noqa: PLC0415 - see the docstring

    found = partial_success(signal, answer, is_json=is_json)
    return None if found is None else Delivered(found[0], one_line(found[1]))


def message_of(status: bytes) -> str | None:
    """Return the message in a serialized `Status`; None if it is something else."""
    from dkist_processing_core.otlp.messages import message_of as message_in  # noqa: PLC0415 - as above

    message = message_in(status)
    return None if message is None else one_line(message)


def retry_delay(status: bytes | None, info: bytes | None = None) -> float | None:
    """
    Return the seconds in the `RetryInfo` of a gRPC error; None without one.

    Args:
        status: The serialized `Status` of the error.
        info: The serialized `RetryInfo` itself, if the collector has sent it on its own.
    """
    if status is None and info is None:
        return None
    from dkist_processing_core.otlp.messages import retry_delay as delay_in  # noqa: PLC0415 - as above

    return delay_in(status, info)


def one_line(text: str) -> str:
    """Return the beginning of a collector's message, which may have any length, as one line."""
    return clean_line(" ".join(text[: 2 * _LONGEST_MESSAGE].split()))[:_LONGEST_MESSAGE]
