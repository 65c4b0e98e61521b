"""
The failure message, older than the events and kept from release 7.x: one per task that failed for good.

Not here: when it is sent, which the engine's reporter decides.
"""

import uuid
from collections.abc import Callable
from typing import Annotated, ClassVar, Self

import msgspec

from dkist_processing_core.events import _checks
from dkist_processing_core.events._kinds import FreeText, about
from dkist_processing_core.events.event import ID_NAMESPACE
from dkist_processing_core.identity import Run
from dkist_processing_core.identity.trace_context import format_identity


class RecipeRunFailureMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of the message that announces a failed recipe run; JSON fields are camelCase."""

    routing_key: ClassVar[str] = "recipe.run.failure.m"
    queue: ClassVar[str] = "recipe.run.failure.q"

    workflow_name: Annotated[str, about("The name of the workflow.")]
    workflow_version: Annotated[str, about("The version of the workflow.")]
    task_name: Annotated[str, about("The name of the task that failed for good.")]
    dag_run_id: Annotated[str | None, about("The run's id, as the engine names it.")] = None
    log_url: Annotated[FreeText | None, about("The address of the log of the last attempt.")] = None
    conversation_id: Annotated[str, about("The id of the conversation; the id of the message if it begins one.")] = ""
    clears: int = 0
    """How often the run had been cleared: a task that is cleared may fail for good again. The body omits it."""

    @classmethod
    def about(cls, run: Run, task_name: str, *, log_url: str | None = None, clears: int = 0) -> Self:
        """Return the message about a task of a run."""
        return cls(
            workflow_name=run.workflow_name,
            workflow_version=run.workflow_version,
            task_name=task_name,
            dag_run_id=run.run_id,
            log_url=log_url,
            clears=clears,
        )

    def __post_init__(self) -> None:
        """Check the values, and clean the text."""
        _checks.check(self)

    def redacted(self, redact: Callable[[str], str]) -> Self:
        """Return the message with `redact` applied to its free text."""
        return msgspec.structs.replace(self, log_url=_checks.redacted(self.log_url, redact))

    @property
    def id(self) -> str:
        """The message's id, derived from run, task and clears, so that one host never sends it twice."""
        identity = [
            "recipe.run.failure",
            self.workflow_name,
            self.workflow_version,
            self.dag_run_id or "",
            self.task_name,
        ]
        identity += [str(self.clears)] if self.clears else []
        return str(uuid.uuid5(ID_NAMESPACE, format_identity(identity)))

    def encode(self) -> bytes:
        """Return the body as UTF-8 JSON; without a conversation id, the message's own id is used."""
        body = {field.encode_name: getattr(self, field.name) for field in msgspec.structs.fields(self)}
        del body["clears"]
        return msgspec.json.encode(body | {"conversationId": self.conversation_id or self.id})
