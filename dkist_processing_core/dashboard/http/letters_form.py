"""
The form that retries or discards dead letters.

Not here: the dead letters (bus.letters), and the pages with the form (pages.bus).
"""

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from dkist_processing_core.dashboard.addresses.links import address
from dkist_processing_core.dashboard.bus.letters import ACTIONS, Letters
from dkist_processing_core.dashboard.bus.status import BusStatus
from dkist_processing_core.dashboard.http.access import Role, Rules, role_of
from dkist_processing_core.dashboard.http.login import form_of
from dkist_processing_core.dead_letters import Action
from dkist_processing_core.errors import DKISTProcessingCoreError

_SEE_OTHER, _BAD_REQUEST, _FORBIDDEN, _CONFLICT, _UNAVAILABLE = 303, 400, 403, 409, 503


class LettersForm:
    """The route of the form."""

    def __init__(self, letters: Letters, status: BusStatus, rules: Rules) -> None:
        """Store the dead letters, the state of the bus, which is read again after a change, and who may change them."""
        self._letters = letters
        self._status = status
        self._rules = rules
        self.routes = [Route("/bus/letters", self._change, methods=["POST"])]

    async def _change(self, request: Request) -> Response:
        fields = {name: values[-1] for name, values in (await form_of(request)).items()}
        if role_of(request.scope) is not Role.OPERATOR:
            raise HTTPException(_FORBIDDEN, "this dashboard, or your role, may only read")
        if not self._rules.is_form_token(fields.get("form_token", "")):
            raise HTTPException(_FORBIDDEN, "the form is not one of this dashboard, or too old: load the page again")
        action, name = fields.get("action"), fields.get("name")
        if action not in ACTIONS or not name:
            detail = f"found action={action!r}, expected one of {', '.join(ACTIONS)}, with the name of a dead letter"
            raise HTTPException(_BAD_REQUEST, detail)
        # A broker may keep it waiting.
        return await run_in_threadpool(self._changed, Action(action), name)

    def _changed(self, action: Action, name: str) -> Response:
        try:
            changed = self._letters.change(action, [name])
        except DKISTProcessingCoreError as error:
            raise HTTPException(_UNAVAILABLE, str(error)) from error
        if not changed.count and changed.obstacles:
            raise HTTPException(_CONFLICT, f"nothing was changed: {next(iter(changed.obstacles.values()))}")
        self._status.refresh()
        done = address("/bus", done=action, count=changed.count, failed=len(changed.obstacles) or None)
        return RedirectResponse(done, _SEE_OTHER)
