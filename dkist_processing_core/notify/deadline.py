"""
A limit of the time that a delivery over the network takes as a whole.

The libraries limit each read alone, and a receiver may send one byte at a time. Not here: the deliveries (webhook,
mail).
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from dkist_processing_core.errors import NotDeliveredError


def within(seconds: float, call: Callable[[], str]) -> str:
    """
    Return the result of a call, or raise its error.

    Raises:
        NotDeliveredError: It has not ended in time. Its thread goes on until the receiver ends the connection.
    """
    future = Future[str]()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            future.set_exception(error)

    threading.Thread(target=run, name="delivery of a notice", daemon=True).start()
    try:
        return future.result(seconds)
    except FutureTimeoutError:
        if future.done():
            raise
        msg = f"the receiver has not answered completely within {seconds:g} s"
        raise NotDeliveredError(msg) from None
