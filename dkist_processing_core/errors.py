"""
Every exception that this package raises, as one tree.

    DKISTProcessingCoreError
    ├── ConfigurationError      a setting has an unusable value            (ValueError)
    ├── IdentityError           the names of a run or attempt are unusable  (ValueError)
    ├── DecodeError             a message is not one of our events          (ValueError)
    │   └── UnknownEventError     it is an event of a type that this release does not know
    ├── EventError              an event is given an unusable value         (ValueError)
    ├── WorkflowError           a workflow cannot be built, exported or run as requested  (ValueError)
    │   └── EngineMissingError    a DAG cannot be loaded: Airflow is not installed
    ├── RunFailedError          a run on this host has failed, and its caller wants an error
    ├── ExtraMissingError       a module that an extra installs is missing  (ImportError)
    ├── EnvironmentRequestError  the request for an environment is unusable  (ValueError)
    ├── EnvironmentBuildError   an environment could not be built
    ├── JournalError            the journal's file cannot be used
    │   ├── JournalVersionError   it was written by a newer release
    │   ├── JournalDamagedError   it is damaged
    │   ├── JournalEmptyError     nothing was written to it yet
    │   ├── JournalFolderError    its folder cannot be created or used
    │   └── JournalAccessError    this user may not read and write it
    ├── EngineApiError          Airflow's REST API did not perform a request
    │   └── EngineUnreachableError  Airflow does not answer, or gives no token; a retry may succeed
    ├── ReportsUnreadableError  the stored reports on a run cannot be read  (ValueError)
    └── BusError                the bus did not perform a request
        ├── BusUnreachableError   the bus does not answer; a retry may succeed
        │   └── ConnectionFailedHereError  this process could not open the connection, or has lost it
        └── BusRefusedError       the bus answers and refuses; needs an operator

Not here: how the lifecycle reports an exception as an event.
"""

# The same as `typing.TYPE_CHECKING`: a launcher imports this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from dkist_processing_core.local.outcomes import RunResult


class DKISTProcessingCoreError(Exception):
    """The base class of this package's exceptions."""


class ConfigurationError(DKISTProcessingCoreError, ValueError):
    """A setting has an unusable value; the message names the variable, the value found and the value expected."""


class IdentityError(DKISTProcessingCoreError, ValueError):
    """The values that should identify a run or an attempt cannot do so."""


class DecodeError(DKISTProcessingCoreError, ValueError):
    """A message is not one of our events; the error text states the reason in a sentence for a dead letter's header."""


class UnknownEventError(DecodeError):
    """A message is one of our events, but of a type that this release does not know: a newer release published it."""


class EventError(DKISTProcessingCoreError, ValueError):
    """An event was given an unusable value; the message names the field and the expectation, but not the value."""

    def __init__(self, message: str, with_values: str = "") -> None:
        """Store the message, and one with the values for a foreign publisher's events; the values may hold a secret."""
        super().__init__(message)
        self.with_values = with_values


class WorkflowError(DKISTProcessingCoreError, ValueError):
    """A workflow cannot be built, exported or run as requested."""


class EngineMissingError(WorkflowError):
    """Airflow is not installed here; only loading a DAG needs it."""


class RunFailedError(DKISTProcessingCoreError):
    """
    A run on this host has failed: at least one of its tasks has not finished. `Workflow.run(check=True)` raises it.

    Attributes:
        result: The outcome of each task of the run, as `Workflow.run` returns it.
    """

    def __init__(self, result: "RunResult") -> None:
        """Store the result of the run."""
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        """Return a text that names the run, and the tasks that have failed."""
        return self.result.summary


class ExtraMissingError(DKISTProcessingCoreError, ImportError):
    """The request needs an extra of this package that is not installed here."""

    def __init__(self, extra: str, purpose: str, module: str) -> None:
        """Store the extra, its purpose as in "a notebook is exported", and the name of the missing module."""
        super().__init__(
            f"{purpose} with the extra {extra!r}, and there is no module {module!r} here; "
            f"install it with pip install 'dkist-processing-core[{extra}]'",
            name=module,
        )


class EnvironmentRequestError(DKISTProcessingCoreError, ValueError):
    """A requested package, extra or version of an environment has an invalid name; the message states which."""


class EnvironmentBuildError(DKISTProcessingCoreError):
    """An environment could not be built; the message names its requirement, or the folder that cannot be used."""

    def __init__(self, message: str, last_lines: tuple[str, ...] = ()) -> None:
        """Store a message of one line, and the last lines of the installer's output; both are free of secrets."""
        super().__init__(message)
        self.last_lines = last_lines


class JournalError(DKISTProcessingCoreError):
    """The journal's file cannot be opened, read or written; the message names the file."""


class JournalLostError(JournalError):
    """Other code of this process has closed the journal's descriptors; opening the journal again may succeed."""


class JournalVersionError(JournalError):
    """The journal's file was written by a newer release and is not changed."""


class JournalDamagedError(JournalError):
    """The journal's file is damaged, or its path is not a regular file."""


class JournalEmptyError(JournalError):
    """The journal's file exists, and nothing was written to it yet."""


class JournalFolderError(JournalError):
    """The journals' folder cannot be created or used, by any process of this user."""


class JournalAccessError(JournalError):
    """This user may not read and write the journal's file; the message names its owner and the remedy."""


class BusError(DKISTProcessingCoreError):
    """The bus did not perform a request; the message is written for an operator."""


class BusUnreachableError(BusError):
    """The bus does not answer at its address, or the connection broke: a retry may succeed."""


class ConnectionFailedHereError(BusUnreachableError):
    """The connection failed in this process, as when other code closed its descriptor; the bus itself may work."""


class BusRefusedError(BusError):
    """The bus answers and refuses: an operator must correct credentials, permissions, virtual host or topology."""


class EngineApiError(DKISTProcessingCoreError):
    """Airflow's REST API did not perform a request; the message is written for an operator, without any secret."""


class EngineUnreachableError(EngineApiError):
    """Airflow does not answer at its address, or accepts no login: no other request can succeed now."""


class InboxError(DKISTProcessingCoreError):
    """The inbox's database did not perform a request; the message names the database, without its password."""


class InboxUnavailableError(InboxError):
    """The inbox's database cannot be reached or written now: a retry may succeed."""


class InboxLostError(InboxError):
    """Other code of this process has closed the descriptors of the inbox; a new process can use it."""


class InboxMissingError(InboxError):
    """There is no inbox in a database that is only looked at; none is made."""


class InboxVersionError(InboxError):
    """The inbox's tables are those of another release, and cannot be used; they are not changed."""


class ReportsUnreadableError(DKISTProcessingCoreError, ValueError):
    """The stored reports on a run cannot be read: a newer release has packed them, or they are damaged."""


class ClaimLostError(InboxError):
    """A row is no longer claimed by this process: the transaction of its effect was rolled back."""


class GiveUpError(DKISTProcessingCoreError):
    """A handler raises it for an event that no further try can handle: the event is a dead letter at once."""


class NotDeliveredError(DKISTProcessingCoreError):
    """A notice was not delivered; a later try may succeed. The message has no address, which may be a secret."""


class RetryLaterError(DKISTProcessingCoreError):
    """A handler raises it for an event that is to be tried again, and not before `seconds` have passed."""

    def __init__(self, message: str, seconds: float) -> None:
        """
        Store the message and the pause, which the consumer limits to its longest one.

        Raises:
            ValueError: The pause is no number of seconds from 0 on.
        """
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not seconds >= 0:
            msg = f"seconds is {seconds!r}, expected a number of seconds from 0 on"
            raise ValueError(msg)
        super().__init__(message)
        self.seconds = seconds
