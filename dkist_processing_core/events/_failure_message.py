"""
The established failure message, older than the events: one per task that failed for good, sent by the engine.

Not here: when it is owed, which the engine's side decides.
"""

import uuid
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dkist_processing_core.events._model import ID_NAMESPACE, Text
from dkist_processing_core.trace_context import format_facts


class RecipeRunFailureMessage(BaseModel):
    """The body of the message that announces a failed recipe run; JSON fields are camelCase."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, defer_build=True)

    routing_key: ClassVar[str] = "recipe.run.failure.m"
    queue: ClassVar[str] = "recipe.run.failure.q"

    workflow_name: Text
    workflow_version: Text
    task_name: Text
    dag_run_id: Text | None = None
    log_url: Text | None = None
    conversation_id: Text = ""
    clears: int = Field(default=0, exclude=True)
    """How often the run had been cleared: a task that is cleared may fail for good again, which is news."""

    @property
    def id(self) -> str:
        """The message's id, derived from run, task and clears, so that one host never sends it twice."""
        facts = ["recipe.run.failure", self.workflow_name, self.workflow_version, self.dag_run_id or "", self.task_name]
        facts += [str(self.clears)] if self.clears else []
        return str(uuid.uuid5(ID_NAMESPACE, format_facts(facts)))

    def encode(self) -> bytes:
        """Return the body as UTF-8 JSON; a conversation that was not named is that of the message itself."""
        message = self if self.conversation_id else self.model_copy(update={"conversation_id": self.id})
        return message.model_dump_json(by_alias=True).encode()
