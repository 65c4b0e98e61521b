"""Exceptions as events describe them: also badly behaved ones, and equal ones equally."""

import hashlib
import re
import types
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from hypothesis import given

from dkist_processing_core.events import Cause, Failure, TaskFailed, decode, describe, encode
from dkist_processing_core.events._failure import _MAX_CHARACTERS
from dkist_processing_core.task import TaskBase
from tests.facts import failed
from tests.strategies import texts


class InstrumentError(Exception):
    """An author's own exception."""


class UnprintableError(Exception):
    """An exception that raises when its text is requested."""

    def __str__(self) -> str:
        """Raise."""
        msg = "no text today"
        raise RuntimeError(msg)

    __repr__ = __str__


class LeavingError(Exception):
    """An exception that ends the program when its text is requested."""

    def __str__(self) -> str:
        """Leave."""
        raise SystemExit


class WordlessError(Exception):
    """An exception without a text."""

    def __str__(self) -> Any:
        """Return an object that is not text."""
        return 7  # noqa: PLE0307 - that is its fault


def described(raising: Callable[[], object]) -> Failure:
    """Return the description of the exception that a function raises."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whichever it is
        raising()
    return describe(caught.value)


def code(source: str, module: str = "pipeline.tasks") -> Callable[[], object]:
    """Return the function `run` of a module with this source."""
    made = types.ModuleType(module)
    exec(compile(source, f"{module}.py", "exec"), made.__dict__)
    run: Callable[[], object] = made.__dict__["run"]
    return run


PLAIN = """
def helper():
    raise ValueError("no good")

def run():
    helper()
"""

FINGERPRINT = hashlib.sha256(b'["ValueError", "pipeline.tasks:run", "pipeline.tasks:helper"]').hexdigest()[:16]


def test_an_exception_gives_type_message_stack_and_cause() -> None:
    """These are the facts that a reader of the event needs."""

    def run() -> None:
        msg = "beam lost"
        raise InstrumentError(msg)

    failure = described(run)

    assert failure["error_type"] == f"{__name__}.InstrumentError"
    assert failure["message"] == "beam lost"
    assert failure["cause"] is Cause.EXCEPTION
    assert failure["stack"].startswith("Traceback (most recent call last):\n")
    assert failure["stack"].endswith("InstrumentError: beam lost\n")
    assert re.fullmatch("[0-9a-f]{16}", failure["fingerprint"])


def test_a_type_that_python_brings_is_named_without_module() -> None:
    """This is the form of a traceback."""
    assert described(code(PLAIN))["error_type"] == "ValueError"


def test_running_out_of_memory_is_a_cause_of_its_own() -> None:
    """MemoryError states a cause that no exit code shows."""
    assert describe(MemoryError())["cause"] is Cause.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UnprintableError(), r"\(its text cannot be read: __str__ raised RuntimeError\)"),
        (LeavingError(), r"\(its text cannot be read: __str__ raised SystemExit\)"),
        (WordlessError(), r"\(its text cannot be read: __str__ raised TypeError\)"),
        (ValueError(), ""),
        (ValueError("\ud800\x00"), "\ud800\x00"),
        (KeyError("x"), "'x'"),
        (OSError(2, "gone", "a/b"), r"\[Errno 2\] gone: 'a/b'"),
        (SystemExit(3), "3"),
    ],
    ids=["raises", "leaves", "no text", "empty", "unclean", "key", "file", "exit"],
)
def test_the_message_is_had_from_any_exception(error: BaseException, message: str) -> None:
    """Whatever its `__str__` does, the description is not empty and can be published."""
    failure = describe(error)

    assert re.fullmatch(message, failure["message"])
    event = failed("A", **failure)
    assert event == decode(encode(event))


def test_a_chain_of_exceptions_is_in_the_stack() -> None:
    """The exception that was being handled, and the cause, are in it, each once."""

    def run() -> None:
        first = KeyError("first")
        try:
            raise first
        except KeyError as error:
            second = ValueError("second")
            second.add_note("a note")
            first.__cause__ = second
            raise second from error

    stack = described(run)["stack"]

    assert "KeyError: 'first'" in stack
    assert "direct cause" in stack
    assert stack.endswith("ValueError: second\na note\n")


def test_a_group_of_exceptions_is_described_with_its_members() -> None:
    """The exception of a task group describes each failure in it."""

    def run() -> None:
        msg = "two at once"
        raise ExceptionGroup(msg, [ValueError("one"), UnprintableError()])

    failure = described(run)

    assert failure["error_type"] == "ExceptionGroup"
    assert failure["message"] == "two at once (2 sub-exceptions)"
    assert "ValueError: one" in failure["stack"]


def test_a_recursion_is_described_in_few_lines() -> None:
    """A thousand equal frames are summarised."""
    failure = described(code("def run():\n    run()\n"))

    assert failure["error_type"] == "RecursionError"
    assert len(failure["stack"].splitlines()) < 50


def test_a_huge_exception_is_shortened_where_it_arises() -> None:
    """
    A gigabyte of message would make cleaning and redaction slow: its beginning and the end of the stack are enough.
    """
    failure = describe(ValueError("m" * 3 * _MAX_CHARACTERS))

    assert failure["message"] == "m" * _MAX_CHARACTERS
    assert len(failure["stack"]) == _MAX_CHARACTERS
    assert failure["stack"].endswith("m\n")


def test_a_secret_is_redacted_before_a_huge_exception_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it would not be recognised any more."""
    monkeypatch.setenv("SITE_TOKEN", "hunter22")

    failure = describe(ValueError("m" * (_MAX_CHARACTERS - 4) + "hunter22" + "m" * _MAX_CHARACTERS))

    assert failure["message"] == "m" * (_MAX_CHARACTERS - 4) + "[red"


@given(texts())
def test_any_message_can_be_published(message: str) -> None:
    """The description of any exception makes an event that is decoded unchanged."""
    event = failed("A", **describe(ValueError(message)))

    assert isinstance(event, TaskFailed)
    assert event == decode(encode(event))


def test_an_exception_that_cannot_be_formatted_is_described_all_the_same() -> None:
    """The traceback module itself raises for a syntax error whose line is not text."""
    failure = describe(SyntaxError("bad", ("pipeline.py", 1, 1, 7)))  # type: ignore[arg-type]

    assert failure["error_type"] == "SyntaxError"
    assert failure["stack"] == "(its stack cannot be read: formatting raised AttributeError)"


# Fingerprints


def test_the_same_failure_at_other_lines_has_the_same_fingerprint() -> None:
    """A new comment above, or another text in the message, makes no new failure."""
    moved = "# a comment\n" * 20 + PLAIN.replace("no good", "no good either").replace("    helper()", "\n    helper()")

    assert described(code(PLAIN))["fingerprint"] == described(code(moved))["fingerprint"]


@pytest.mark.parametrize(
    ("source", "module"),
    [
        (PLAIN.replace("ValueError", "TypeError"), "pipeline.tasks"),
        (PLAIN.replace("helper", "other"), "pipeline.tasks"),
        (PLAIN.replace("    helper()", "    raise ValueError('no good')"), "pipeline.tasks"),
        (PLAIN, "pipeline.other"),
    ],
    ids=["type", "function", "depth", "module"],
)
def test_another_failure_has_another_fingerprint(source: str, module: str) -> None:
    """Type, functions and modules distinguish failures."""
    assert described(code(PLAIN))["fingerprint"] != described(code(source, module))["fingerprint"]


def test_a_recursion_has_one_fingerprint_at_any_depth() -> None:
    """The depth of the stack at its beginning makes no difference."""
    source = "def run(depth={}):\n    run(depth - 1) if depth else 1 / 0\n"

    assert described(code(source.format(3)))["fingerprint"] == described(code(source.format(500)))["fingerprint"]


def test_methods_are_told_apart_by_their_class() -> None:
    """Two tasks that fail in their own `run` fail in different functions."""
    source = "class {0}:\n    def run(self):\n        1 / 0\ndef run():\n    {0}().run()\n"

    assert described(code(source.format("A")))["fingerprint"] != described(code(source.format("B")))["fingerprint"]


def test_our_own_frames_are_no_part_of_a_fingerprint() -> None:
    """The same failure of a task is equal for every way to start it."""

    class Failing(TaskBase):
        """A task that fails."""

        def run(self) -> NoReturn:
            """Fail."""
            raise ValueError

    task = Failing(recipe_run_id=1, workflow_name="W", workflow_version="1")

    assert described(task.run)["fingerprint"] == described(task)["fingerprint"]


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """It is derived from the facts alone, so this test can contain it as a text."""
    with pytest.raises(ValueError, match="no good") as caught:
        code(PLAIN)()
    outermost = caught.value.__traceback__
    assert outermost is not None

    failure = describe(caught.value.with_traceback(outermost.tb_next))

    assert failure["fingerprint"] == FINGERPRINT
