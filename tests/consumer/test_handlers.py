"""
What a function of an author must be to be called by a consumer, and the values of a consumer.
"""

# ruff: noqa: ARG005 - the parameters of a function are what is tested
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dkist_processing_core import Consumer
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer.handlers import called_with, wanting
from tests.facts import failed


class Handlers:
    """
    Functions of each kind.
    """

    def method(self, event: object, transaction: object) -> None:
        """
        Take both.
        """

    def __call__(self, event: object) -> None:
        """
        Take an event.
        """

    @staticmethod
    def static(event: object, *, transaction: object, greeting: str = "hello") -> None:
        """
        Take both, and a parameter with a default.
        """


async def asynchronous(event: object) -> None:
    """
    Take an event.
    """


def with_greeting(greeting: str, event: object) -> None:
    """
    Take an event after another parameter.
    """


def generator(event: object) -> Iterator[object]:
    """
    Do nothing when it is called.
    """
    yield event


@pytest.mark.parametrize(
    ("function", "takes_transaction", "is_async"),
    [
        (Handlers().method, True, False),
        (Handlers(), False, False),
        (Handlers.static, True, False),
        (asynchronous, False, True),
        (functools.partial(with_greeting, "hello"), False, False),
        (functools.partial(asynchronous), False, True),
        (lambda *events: None, False, False),
        (lambda event, transaction=None: None, True, False),
    ],
)
def test_a_handler_takes_an_event_and_perhaps_the_transaction(
    function: Callable[..., Any],
    takes_transaction: bool,  # noqa: FBT001 - a parameter of the test
    is_async: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """
    It may be any function that can be called with them.
    """
    called = called_with(function, takes_event=True)

    assert (called.takes_transaction, called.is_async) == (takes_transaction, is_async)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: None, r"found .*<lambda>\(\), expected handler\(event\) or handler\(event, transaction\)"),
        (lambda event, session: None, r"<lambda>\(event, session\), expected .*; give other parameters a default"),
        (lambda *, event: None, r"<lambda>\(\*, event\), expected"),
        (lambda transaction: None, r"<lambda>\(transaction\), expected"),
        (generator, "generator is a generator, which does nothing when it is called"),
        ("announce", "found 'announce', expected a function"),
        (Handlers, r"found the class Handlers, expected a function: handler\(event\)"),
        (max, "found max, whose parameters are not known, expected .*: write a function that calls it"),
    ],
)
def test_a_function_with_other_parameters_is_refused_where_it_is_registered(
    function: Callable[..., Any], message: str
) -> None:
    """
    The error shows the function and what is expected, before any event arrives.
    """
    with pytest.raises(TypeError, match=message):
        Consumer("announcer").on("task.failed")(function)


def test_timed_work_takes_no_event() -> None:
    """
    It takes nothing, or the transaction.
    """
    consumer = Consumer("announcer")
    consumer.every(60)(lambda transaction: None)

    with pytest.raises(TypeError, match=r"expected work\(\) or work\(transaction\)"):
        consumer.every(60)(lambda event: None)
    with pytest.raises(ValueError, match=r"there is timed work .* already"):
        consumer.every(30)(lambda: None)


@pytest.mark.parametrize("seconds", [0, -1, "5", True, None, float("inf"), 10**400, 1e-300])
def test_timed_work_needs_an_interval(seconds: Any) -> None:
    """
    The message states the shortest one.
    """
    with pytest.raises(ValueError, match=r"seconds is .*, expected a number of seconds from 0\.001 on"):
        Consumer("announcer").every(seconds)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": ""}, "name is '', expected one or more printable characters"),
        ({"workers": 0}, "workers is 0, expected a whole number from 1 on"),
        ({"workers": True}, "workers is True, expected a whole number"),
        ({"workers": 10**9}, "workers is 1000000000, expected a whole number from 1 to 1000: each is a thread"),
        ({"settings": 5}, "settings is a value of the type int, expected a DKISTProcessingCoreConfiguration; None"),
        ({"settings": {"isb_password": "secret"}}, "settings is a value of the type dict, expected"),
        ({"settings": DKISTProcessingCoreConfiguration}, "settings is a class, expected a DKIST"),
        ({"batch_size": 1.5}, "batch_size is 1.5, expected a whole number from 1 on"),
        ({"max_tries": "3"}, "max_tries is '3', expected a whole number"),
        ({"max_starts": 0}, "max_starts is 0, expected"),
        ({"provisional_after": float("nan")}, "provisional_after is nan, expected a number of seconds from 0 on"),
        ({"first_pause": -1}, "first_pause is -1, expected a number of seconds"),
        ({"first_pause": 10**400}, "first_pause is .*, expected a number of seconds"),
        ({"ordered": "task"}, "ordered is 'task', expected 'run' or None"),
        ({"every_report": "no"}, "every_report is 'no', expected True or False"),
        ({"provisional": 1}, "provisional is 1, expected True or False"),
        ({"inbox": 5}, "inbox is 5, expected the URL of a database, such as sqlite:////path/inbox.db or postgresql://"),
        ({"inbox": ""}, "inbox is '', expected the URL of a database"),
        ({"name": 5}, "name is 5, expected one or more printable characters"),
        ({"name": "n" * 300}, "name is 'n+\\.\\.\\.n+', expected at most 251 bytes"),
    ],
)
def test_a_value_that_a_consumer_cannot_have_is_refused(values: dict[str, Any], message: str) -> None:
    """
    The message names it and what is expected.
    """
    with pytest.raises(ValueError, match=message):
        Consumer(**{"name": "announcer"} | values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda consumer: consumer.on(worklow="l0_*"),
            r"^Consumer\.on: found the argument 'worklow', expected workflow; ",
        ),
        (
            lambda consumer: consumer.on(event="task.failed"),
            "expected one of workflow, task, provisional; for example: @",
        ),
        (
            lambda consumer: consumer.on(name="task.failed"),
            "found the argument 'name', expected names without a keyword;",
        ),
        (lambda consumer: consumer.every(second=60), "^Consumer.every: found the argument 'second', expected seconds;"),
        (lambda consumer: consumer.every(), r"^Consumer\.every needs seconds; for example: @consumer\.every\(60\)$"),
        (
            lambda consumer: consumer.run(untilidle=True),
            "^Consumer.run: found the argument 'untilidle', expected until_idle",
        ),
        (lambda consumer: consumer.run("2h"), "^Consumer.run: found '2h' without a name, expected name=value"),
        (
            lambda _: Consumer("announcer", worker=2),  # type: ignore[call-arg]
            "^Consumer: found the argument 'worker', expected workers; for example",
        ),
        (lambda _: Consumer(), "^Consumer needs name; for example: Consumer"),  # type: ignore[call-arg]
    ],
)
def test_an_argument_that_does_not_exist_is_one_sentence_with_the_right_one(
    call: Callable[[Consumer], object], message: str
) -> None:
    """
    As for workflows, with an example of a right call.
    """
    with pytest.raises(TypeError, match=message):
        call(Consumer("announcer"))


def test_a_decorator_without_parentheses_is_noticed() -> None:
    """
    Otherwise the function would be the name of an event.
    """
    with pytest.raises(TypeError, match=r"write @consumer\.on\('task\.failed'\)"):
        Consumer("announcer").on(lambda event: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "values", "message"),
    [
        (["task.faild"], {}, "there is no event 'task.faild'; expected one of workflow.started, .*task.failed"),
        (["task.faild*"], {}, r"there is no event 'task.faild\*'"),
        (
            ["workflow.started"],
            {"task": "A"},
            "task is 'A', and workflow.started has no task; expected events of tasks",
        ),
        (["task.failed", "workflow.*"], {"task": "A"}, r"task is 'A', and workflow\.\* has no task"),
        (["task.failed"], {"workflow": 5}, "workflow is 5, expected the name of a workflow, or a pattern of names"),
        (["task.failed"], {"task": ""}, "task is '', expected the name of a task, or a pattern of names"),
        (["task.failed"], {"provisional": "no"}, "provisional is 'no', expected True or False"),
    ],
)
def test_a_choice_that_no_event_can_match_is_refused(names: list[str], values: dict[str, Any], message: str) -> None:
    """
    The handler would never be called.
    """
    with pytest.raises(ValueError, match=message):
        Consumer("announcer").on(*names, **values)


@pytest.mark.parametrize(
    ("found", "kind"), [(["task.failed"], r"\['task.failed'\]"), (Handlers, "a class"), (5, "5"), (print, "a function")]
)
def test_what_is_no_name_of_an_event_is_refused(found: Any, kind: str) -> None:
    """
    The message shows a right call.
    """
    with pytest.raises(
        TypeError, match=rf"found {kind}, expected names of events: write @consumer\.on\('task\.failed'\)"
    ):
        Consumer("announcer").on(found)


def test_a_function_is_registered_once_for_the_same_events_and_called_once_for_each() -> None:
    """
    It may be registered for others, also if they overlap.
    """
    consumer = Consumer("announcer")

    def announce(event: object) -> None:
        raise AssertionError(event)

    consumer.on("task.failed", workflow="l0_*")(consumer.on("task.failed")(announce))

    with pytest.raises(ValueError, match="announce is registered for these events already, expected once"):
        consumer.on("task.failed")(announce)
    (called,) = wanting(consumer.handlers, failed("A", workflow_name="l0_x"))
    assert called.function is announce


def test_handlers_of_an_event_agree_about_provisional_reports() -> None:
    """
    An event is handled once, so it cannot be handled at once for one and later for the other.
    """
    consumer = Consumer("announcer", provisional=True)
    consumer.on("task.failed")(lambda event: None)
    consumer.on("task.started", provisional=False)(lambda event: None)

    with pytest.raises(
        ValueError, match=r"provisional=False and .* provisional=True, expected the same for task.failed"
    ):
        consumer.on("task.f*", provisional=False)(lambda event: None)


def test_a_consumer_without_handlers_does_not_run() -> None:
    """
    It would acknowledge events that nothing has handled.
    """
    with pytest.raises(ValueError, match="the consumer 'announcer' has no handler"):
        Consumer("announcer").run()


def test_a_decorated_function_remains_what_it_is() -> None:
    """
    A test may call it.
    """
    seen = []
    consumer = Consumer("announcer", inbox="postgresql://user:secret@host/database")

    @consumer.on("task.failed")
    def announce(event: object) -> None:
        seen.append(event)

    announce(failed("A"))

    assert seen == [failed("A")]
    assert repr(consumer) == "Consumer('announcer')"


def test_what_may_contradict_a_provisional_failure_is_received_as_well() -> None:
    """
    A success of the same task cancels it; a consumer that takes provisional reports needs none.
    """
    waits, takes = Consumer("waits"), Consumer("takes", provisional=True)
    for consumer in (waits, takes):
        consumer.on("task.failed", workflow="l0_*", task="Parse")(lambda event: None)

    assert set(waits.patterns) == {"task.failed.*.Parse", "task.finished.*.Parse"}
    assert takes.patterns == ("task.failed.*.Parse",)
