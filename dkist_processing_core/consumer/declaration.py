"""
What a consumer is: its name, its rules, its handlers and its timed work.

It is long because each value that an author hands over is checked here. Not here: running it (_consumer), and its rows
(inbox).
"""

import inspect
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from dkist_processing_core.author_calls import author_call
from dkist_processing_core.consumer._names import check_name
from dkist_processing_core.consumer._selection import Selection, matches
from dkist_processing_core.consumer.handlers import Called, Handler, called_with, name_of
from dkist_processing_core.events import Event, TaskFailed, TaskFinished
from dkist_processing_core.settings.interface import Settings
from dkist_processing_core.text import show
from dkist_processing_core.text.exception_text import class_name

if TYPE_CHECKING:
    from dkist_processing_core.consumer.caught_up import OnCaughtUp
    from dkist_processing_core.metrics.snapshot import Source

# Python 3.12 has a syntax for this.
_Function = TypeVar("_Function", bound=Callable[..., Any])
# The events that an engine may report before those with better information do.
_PROVISIONAL = (TaskFailed.name, TaskFinished.name)
_SHORTEST_SECONDS = 0.001
_MOST_WORKERS = 1000


class Declaration:
    """The declaration of a consumer, to which an author adds functions by decorators."""

    @author_call(
        'Consumer("announcer", workers=2)', url="inbox", batch="batch_size", order="ordered", retries="max_tries"
    )
    def __init__(
        self,
        name: str,
        *,
        inbox: str | None = None,
        workers: int = 1,
        batch_size: int = 1,
        ordered: Literal["run"] | None = None,
        every_report: bool = False,
        provisional: bool = False,
        provisional_after: float = 60.0,
        max_tries: int = 10,
        max_starts: int = 5,
        first_pause: float = 1.0,
        longest_pause: float = 900.0,
        settings: Settings | None = None,
    ) -> None:
        """
        Store the rules of a consumer. No file and no connection is opened.

        Args:
            name: The name under which the bus and the inbox keep its position. Several processes may share it: one of
                them receives, and on PostgreSQL all of them handle; on SQLite they take turns.
            inbox: The URL of a database, such as `postgresql://user@host/database` or `sqlite:////path/inbox.db`. By
                default it is that of the setting `DKIST_CORE_INBOX`, or the file `inbox.db` beside the journals.
            workers: The number of threads that call handlers.
            batch_size: How many events may share a transaction, if all handlers join it; after a failure one by one.
            ordered: `"run"` handles the events of a run in their order of arrival. An event that waits for its next
                try, or that is dead, holds back the later ones of its run.
            every_report: Handle each reporter's report of an occurrence, instead of each occurrence once.
            provisional: Handle provisional reports at once. By default, a provisional report waits for a firm one,
                which replaces it, or cancels it if it reports another end of the same attempt.
            provisional_after: After how many seconds such a report is handled, if no firm one has come to the bus.
            max_tries: After how many failures of its handlers an event is dead.
            max_starts: After how many ends of the process during its handling an event is dead. With 1, each process
                handles one event at a time, so that its end has one cause.
            first_pause: The pause before the second try, in seconds. Each further pause is longer.
            longest_pause: The limit of these pauses.
            settings: Read from the environment if they are not given.

        Raises:
            ValueError: A value cannot be used; the message names it.
            TypeError: There is no such argument, or `name` is missing.
        """
        check_name(name)
        check_workers(workers)
        for value, what in ((batch_size, "batch_size"), (max_tries, "max_tries"), (max_starts, "max_starts")):
            check_number(what, value, 1, int)
        for pause, what in ((first_pause, "first_pause"), (longest_pause, "longest_pause")):
            check_number(what, pause, 0, float)
        check_number("provisional_after", provisional_after, 0, float)
        for is_so, what in ((every_report, "every_report"), (provisional, "provisional")):
            _check_truth(what, is_so)
        if inbox is not None and (not isinstance(inbox, str) or not inbox):
            msg = (
                f"inbox is {show(inbox)}, expected the URL of a database, such as sqlite:////path/inbox.db or "
                "postgresql://user@host/database; None is the default"
            )
            raise ValueError(msg)
        if ordered not in (None, "run"):
            msg = f"ordered is {show(ordered)}, expected 'run' or None"
            raise ValueError(msg)
        if settings is not None and (inspect.isclass(settings) or not hasattr(settings, "dkist_core_inbox")):
            # It may hold a password, and is not shown.
            kind = "a class" if inspect.isclass(settings) else f"a value of the type {class_name(type(settings))}"
            msg = f"settings is {kind}, expected a DKISTProcessingCoreConfiguration; None reads the environment"
            raise ValueError(msg)
        self.name = name
        self.inbox = inbox
        self.workers = workers
        self.batch_size = batch_size
        self.is_ordered = ordered == "run"
        self.every_report = every_report
        self.provisional_after = provisional_after
        self.max_tries = max_tries
        self.max_starts = max_starts
        self.first_pause = first_pause
        self.longest_pause = longest_pause
        self.settings = settings
        self.handlers: list[Handler] = []
        # The firm ends of attempts that may contradict provisional ones that wait.
        self._contradicting: list[Selection] = []
        self._wants_everything = False
        self.timers: list[tuple[float, Called]] = []
        self.shared_metrics: list[Source] = []
        """What its process serves beside the metrics of a consumer, as other processes do."""
        self.sends_shared_metrics: Callable[[], bool] = lambda: True
        """Whether its process is the one of them that sends these to a collector."""
        self.fault: Callable[[], str | None] = lambda: None
        """What has failed beside the handlers, for the health of its process; None if nothing has."""
        self.has_spans = True
        """Whether each call of a handler is a span, whose log records name the run; not if all calls are alike."""
        self.on_caught_up: OnCaughtUp | None = None
        """Called with each proof that the inbox has everything that was on the bus; None for no proofs."""
        self.receives = True
        """Whether it receives from the bus; if not, it handles the rows that other code stores in its name."""
        self._provisional = provisional
        self._is_provisional: dict[str, tuple[bool, str]] = {}

    def __repr__(self) -> str:
        """Return the name; the address of the inbox may hold a password."""
        return f"Consumer({self.name!r})"

    @author_call("@consumer.on('task.failed', workflow='l0_to_l1_*')", name="names without a keyword")
    def on(
        self,
        *names: str,
        workflow: str | None = None,
        task: str | None = None,
        provisional: bool | None = None,
    ) -> Callable[[_Function], _Function]:
        """
        Call the decorated function for events.

        It is called as `handler(event)`, or as `handler(event, transaction)` if it has a parameter of that name; it may
        be `async`. If several handlers want an event, they are called in the order of their registration in one
        transaction, and are tried again together. Effects that shall fail independently belong to two consumers.

        Args:
            names: The names of events, such as `"task.failed"`; all events if none is given. In each name, `*` stands
                for any text and `?` for one character.
            workflow: The name of the workflow, or a pattern.
            task: The name of the task, or a pattern.
            provisional: As for the consumer. All handlers of an event must agree.

        Raises:
            ValueError: No event can match, the function is registered for these events already, or another handler of
                an event disagrees about provisional reports.
            TypeError: There is no such argument, or the function takes other parameters.
        """
        if any(not isinstance(name, str) for name in names):
            found = next(name for name in names if not isinstance(name, str))
            kind = "a class" if inspect.isclass(found) else "a function" if callable(found) else show(found)
            msg = f"found {kind}, expected names of events: write @consumer.on('task.failed')"
            raise TypeError(msg)
        if provisional is not None:
            _check_truth("provisional", provisional)
        selection = Selection(names, workflow, task)

        def register(function: _Function) -> _Function:
            called = called_with(function, takes_event=True)
            if Handler(selection, called) in self.handlers:
                msg = f"{name_of(function)} is registered for these events already, expected once"
                raise ValueError(msg)
            is_provisional = self._provisional if provisional is None else provisional
            for name in _PROVISIONAL:
                if not names or any(matches(each, name) for each in names):
                    agreed, other = self._is_provisional.setdefault(name, (is_provisional, name_of(function)))
                    if agreed != is_provisional:
                        msg = (
                            f"{name_of(function)} has provisional={is_provisional} and {other} provisional={agreed}, "
                            f"expected the same for {name}: an event is handled once; make two consumers"
                        )
                        raise ValueError(msg)
            self._add(Handler(selection, called))
            return function

        return register

    @author_call("@consumer.every(60)", minutes="seconds", hours="seconds")
    def every(self, seconds: float) -> Callable[[_Function], _Function]:
        """
        Call the decorated function every so many seconds, in one process of the consumer at a time.

        It is called as `work()`, or as `work(transaction)` if it has a parameter of that name: the transaction also
        stores when the work is due next. It may be `async`. The first call is due so many seconds after the first
        start, and missed calls are not made up for. Work is due until it has returned: if the process is killed
        meanwhile, another one does it again. What it writes in the transaction happens once.

        Raises:
            ValueError: The number is less than 0.001, or there is other timed work of that name.
            TypeError: The function takes other parameters.
        """
        check_number("seconds", seconds, _SHORTEST_SECONDS, float)

        def register(function: _Function) -> _Function:
            called = called_with(function, takes_event=False)
            if any(each.name == called.name for _, each in self.timers):
                msg = f"there is timed work {called.name!r} already, expected another name: it is stored by its name"
                raise ValueError(msg)
            self.timers.append((float(seconds), called))
            return function

        return register

    def take_batches(self, function: Callable[..., Any]) -> None:
        """
        Call a function for all events, with as many at a time as share a transaction: `function(events, transaction)`.

        It is then the only handler. A consumer of this package uses it that writes many rows by one statement. If such
        a consumer takes every report and keeps no order, the process that receives calls the function in the
        transaction in which events arrive; if that fails, they are stored and handled later, as for any other handler.

        Raises:
            ValueError: There is another handler.
        """
        called = Called(function, name_of(function), takes_transaction=True, is_async=False, takes_batch=True)
        self._add(Handler(Selection((), None, None), called))

    @property
    def handles_on_arrival(self) -> bool:
        """Whether events are handled in the transaction in which they arrive."""
        has_batches = bool(self.handlers) and self.handlers[0].called.takes_batch
        return has_batches and self.every_report and not self.is_ordered

    def takes_provisional(self, name: str) -> bool:
        """Return True if provisional reports of an event are handled at once."""
        return self.every_report or self._is_provisional.get(name, (self._provisional, ""))[0]

    @property
    def doubted(self) -> frozenset[str]:
        """The names of the handled events whose provisional reports wait for firm ones."""
        handled = self._is_provisional or _PROVISIONAL
        return frozenset(name for name in handled if not self.takes_provisional(name))

    def wants(self, event: Event) -> bool | None:
        """Return True if a handler wants an event, False if it may contradict a wanted one, otherwise None."""
        if self._wants_everything or any(handler.selection.matches(event) for handler in self.handlers):
            return True
        return False if any(selection.matches(event) for selection in self._contradicting) else None

    def _add(self, handler: Handler) -> None:
        if self.handlers and (handler.called.takes_batch or self.handlers[0].called.takes_batch):
            names = f"{self.handlers[0].called.name} and {handler.called.name}"
            msg = f"found the handlers {names}, expected one: a function that takes batches is the only handler"
            raise ValueError(msg)
        self.handlers.append(handler)
        selection = handler.selection
        self._wants_everything = self._wants_everything or selection.is_everything
        wanted = [each for each in _PROVISIONAL if not selection.names or _wants(selection, each)]
        others = tuple(each for each in _PROVISIONAL if each not in wanted)
        if wanted and others and not all(map(self.takes_provisional, wanted)):
            self._contradicting.append(Selection(others, selection.workflow, selection.task))

    @property
    def patterns(self) -> tuple[str, ...]:
        """The topic patterns of the events to receive: those that handlers want, and those that may contradict them."""
        selections = [*(handler.selection for handler in self.handlers), *self._contradicting]
        return tuple(dict.fromkeys(pattern for selection in selections for pattern in selection.patterns))


def _wants(selection: Selection, name: str) -> bool:
    return any(matches(each, name) for each in selection.names)


def check_workers(value: object) -> None:
    """Raise a ValueError for a value that is no number of threads."""
    check_number("workers", value, 1, int)
    if isinstance(value, int) and value > _MOST_WORKERS:
        msg = f"workers is {show(value)}, expected a whole number from 1 to {_MOST_WORKERS}: each is a thread"
        raise ValueError(msg)


def check_number(what: str, value: object, least: float, kind: type) -> None:
    """Raise a ValueError for a value that is no finite number of that kind, or less than `least`."""
    is_number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    # An integer may be too large for a float.
    if not is_number or not least <= value < math.inf or (kind is float and value > sys.float_info.max):  # type: ignore[operator]
        expected = f"a whole number from {least} on" if kind is int else f"a number of seconds from {least} on"
        msg = f"{what} is {show(value)}, expected {expected}"
        raise ValueError(msg)


def _check_truth(what: str, value: object) -> None:
    if not isinstance(value, bool):
        msg = f"{what} is {show(value)}, expected True or False"
        raise ValueError(msg)  # noqa: TRY004 - as for the other values
