"""
A termination request during an event loop.

Not here: how a launcher requests the end of a task (test_faults, test_edges).
"""

import signal
import subprocess
import sys
import textwrap

import pytest

AT_THE_MOMENT = """
import asyncio, signal, sys
from dkist_processing_core.process.termination import TaskTermination

def request_at(event, function):
    def look(frame, happened, _):
        module = frame.f_globals["__name__"]
        if (happened, frame.f_code.co_name) == (event, function) and module.startswith(("asyncio.", "linecache")):
            sys.setprofile(None)
            handler(signal.SIGTERM, frame)
    sys.setprofile(look)

async def compute():
    request_at(*sys.argv[1:])
    while True:
        await asyncio.sleep(0)

async def main():
    computing = asyncio.create_task(compute())
    try:
        await asyncio.Event().wait()
    finally:
        print("let go")

async def be_over():
    request_at("return", "_run_until_complete_cb")

termination = TaskTermination()
termination.begin()
handler = signal.getsignal(signal.SIGTERM)
"""


def outcome_of(program: str, *arguments: str) -> tuple[int, str]:
    """
    Run a program after the common code above, and return its status and its output.
    """
    told = subprocess.run(
        [sys.executable, "-c", AT_THE_MOMENT + textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return told.returncode, told.stdout + told.stderr


@pytest.mark.parametrize(
    ("event", "function"), [("call", "_run"), ("return", "_run"), ("call", "_run_once"), ("call", "sleep")]
)
def test_a_termination_request_in_the_midst_of_an_event_loop_ends_all_that_it_runs(event: str, function: str) -> None:
    """
    An exception inside the loop's code would lose the step that the loop has just removed, and leave the loop waiting
    without an end.
    """
    assert outcome_of("asyncio.run(main())", event, function) == (128 + 15, "let go\n")


def test_a_termination_request_in_a_call_of_a_loop_in_debug_mode_is_deferred_too() -> None:
    """
    In debug mode, the loop inspects where each step comes from, in modules other than its own.
    """
    assert outcome_of("asyncio.run(main(), debug=True)", "call", "checkcache") == (128 + 15, "let go\n")


def test_the_signal_is_not_sent_again_to_another_handler() -> None:
    """
    After the exception was raised, the author's code handles the signal.
    """
    program = """
        try:
            asyncio.run(main())
        except SystemExit:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.sigtimedwait([], 0.3)
            print("cleaned up")
    """
    assert outcome_of(program, "call", "_run_once") == (0, "let go\ncleaned up\n")


def test_a_termination_request_in_the_last_step_of_a_loop_is_raised_behind_it() -> None:
    """
    The signal is sent again if the loop runs no other step.
    """
    program = """
        asyncio.new_event_loop().run_until_complete(be_over())
        print("over")
        signal.pause()
    """
    assert outcome_of(program) == (128 + 15, "over\n")


TWO_INTERRUPTS = """
import gc, weakref
from dkist_processing_core.process.termination import raised_as_exception

class Large:
    pass

def interrupted():
    large = Large()
    seen.append(weakref.ref(large))
    with raised_as_exception():
        raise KeyboardInterrupt

seen = []
try:
    interrupted()
except KeyboardInterrupt:
    pass
gc.collect()
print("kept" if seen[0]() else "released", flush=True)
interrupted()
"""


def test_each_uncaught_interrupt_is_quiet_and_keeps_nothing_of_the_one_before() -> None:
    """
    A script may catch the first Ctrl-C and go on; what the frames of the first one held is released.
    """
    ended = subprocess.run([sys.executable, "-c", TWO_INTERRUPTS], capture_output=True, text=True, check=False)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("released\n", "", -signal.SIGINT)
