"""
Every exception that this package raises, as one tree.

    DKISTProcessingCoreError
    ├── ConfigurationError      a setting has an unusable value            (ValueError)
    ├── IdentityError           a run or attempt is named unusably          (ValueError)
    ├── DecodeError             a message is not one of our events          (ValueError)
    │   └── UnknownEventError     it is an event of a type that this release does not know
    ├── EventError              an event is given an unusable value         (ValueError)
    ├── WorkflowError           a workflow cannot be built, exported or run as asked  (ValueError)
    │   └── EngineMissingError    Airflow is not installed where it is to be loaded
    ├── ExtraMissingError       what an extra installs is not here          (ImportError)
    ├── EnvironmentRequestError  an environment is asked for unusably      (ValueError)
    ├── EnvironmentBuildError   an environment could not be made
    ├── JournalError            the journal's file cannot be used
    │   ├── JournalVersionError   it was written by a newer release
    │   ├── JournalDamagedError   it is damaged
    │   ├── JournalEmptyError     nothing was written to it yet
    │   └── JournalAccessError    this user may not read and write it
    └── BusError                the bus did not do what was asked
        ├── BusUnreachableError   nobody answers there; worth another try
        │   └── ConnectionFailedHereError  this process could not open the connection, or has lost it
        └── BusRefusedError       it answers and says no; needs an operator

Not here: how an exception is reported as an event, which is the lifecycle's business.
"""


class DKISTProcessingCoreError(Exception):
    """The root of this package's exceptions."""


class ConfigurationError(DKISTProcessingCoreError, ValueError):
    """A setting has an unusable value; the message names the variable, what was found and what was expected."""


class IdentityError(DKISTProcessingCoreError, ValueError):
    """A run or an attempt is named by values that cannot name one."""


class DecodeError(DKISTProcessingCoreError, ValueError):
    """A message is not one of our events; the message says why, in a sentence fit for a dead letter's header."""


class UnknownEventError(DecodeError):
    """A message is an event of ours, of a type that this release does not know: a newer one has published it."""


class EventError(DKISTProcessingCoreError, ValueError):
    """An event was given an unusable value; the message names the field and what was expected, but not the value."""

    def __init__(self, message: str, with_values: str = "") -> None:
        """Take the message, and one with the values, which may hold a secret: for those of a foreign publisher."""
        super().__init__(message)
        self.with_values = with_values


class WorkflowError(DKISTProcessingCoreError, ValueError):
    """A workflow cannot be built, exported or run as it was asked to be."""


class EngineMissingError(WorkflowError):
    """Airflow is not installed here; only loading a DAG into the engine needs it."""


class ExtraMissingError(DKISTProcessingCoreError, ImportError):
    """What is asked for needs an extra of this package, which is not installed here."""

    def __init__(self, extra: str, purpose: str, module: str) -> None:
        """Take the extra, what is done with it, as in "a notebook is exported", and the module that is missing."""
        super().__init__(
            f"{purpose} with the extra {extra!r}, and there is no module {module!r} here; "
            f"install it with pip install 'dkist-processing-core[{extra}]'",
            name=module,
        )


class EnvironmentRequestError(DKISTProcessingCoreError, ValueError):
    """What an environment should hold cannot be a package, an extra or a version; the message says which."""


class EnvironmentBuildError(DKISTProcessingCoreError):
    """An environment could not be made; the message names what it is for, or the folder that cannot be used."""

    def __init__(self, message: str, last_lines: tuple[str, ...] = ()) -> None:
        """Take one line, and the last lines that the installer wrote; both are free of secrets."""
        super().__init__(message)
        self.last_lines = last_lines


class JournalError(DKISTProcessingCoreError):
    """The journal's file cannot be opened, read or written; the message names the file."""


class JournalLostError(JournalError):
    """Other code of this process has closed what the journal had open; another opening may succeed."""


class JournalVersionError(JournalError):
    """The journal's file was written by a newer release, and is left untouched."""


class JournalDamagedError(JournalError):
    """The journal's file is damaged, or something that is no file has its name."""


class JournalEmptyError(JournalError):
    """The journal's file is there, and nothing was written to it yet."""


class JournalAccessError(JournalError):
    """This user may not read and write the journal's file; the message names its owner and the remedy."""


class BusError(DKISTProcessingCoreError):
    """The bus did not do what was asked of it; the message speaks in an operator's words."""


class BusUnreachableError(BusError):
    """Nobody answers at the bus's address, or the connection broke: another try may succeed."""


class ConnectionFailedHereError(BusUnreachableError):
    """The connection failed in this process, as by a descriptor that other code of it closed: the bus may be well."""


class BusRefusedError(BusError):
    """The bus answers and refuses: credentials, rights, virtual host or topology need an operator."""
