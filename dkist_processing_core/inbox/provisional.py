"""
Provisional reports: firm ones cancel them, and they are believed when no firm one can be on its way.

A provisional row is due at a time, and no worker takes it then: the process that receives has it due at once when it
knows that everything is stored that was on the bus at that time. Not here: that proof (consumer.caught_up), and a firm
report in the place of a provisional one (arrivals).
"""

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, text

from dkist_processing_core.inbox.order import RunKey, let_go_on
from dkist_processing_core.inbox.rules import Rules
from dkist_processing_core.inbox.tables import CLEAR

# A firm end of an attempt cancels provisional reports of another end of it. Without a number it is of any attempt.
# One without a number is about the last attempt: a report of the task's final end, with a number, makes it needless.
_cancellation = text(
    f"""
    UPDATE dkist_core_inbox SET state = 'cancelled', {CLEAR}, done_at = :now
    WHERE consumer = :consumer AND run_id IN :runs AND provisional AND state IN ('waiting', 'parked')
    AND claim IS NULL AND EXISTS (
        SELECT 1 FROM dkist_core_inbox other
        WHERE other.consumer = dkist_core_inbox.consumer AND other.run_id = dkist_core_inbox.run_id
        AND other.task = dkist_core_inbox.task AND other.is_end AND other.state <> 'cancelled'
        AND other.workflow = dkist_core_inbox.workflow AND other.version = dkist_core_inbox.version
        AND ((NOT other.provisional AND other.name <> dkist_core_inbox.name
              AND (other.attempt = dkist_core_inbox.attempt OR other.attempt IS NULL
                OR dkist_core_inbox.attempt IS NULL))
          OR (other.is_final AND other.name = dkist_core_inbox.name
              AND other.attempt IS NOT NULL AND dkist_core_inbox.attempt IS NULL))
    )
    """  # noqa: S608 - constants
).bindparams(bindparam("runs", expanding=True))


def cancel(connection: Connection, rules: Rules, runs: Collection[RunKey], now: float) -> int:
    """Cancel the provisional reports in runs that a firm one contradicts, and return their number."""
    values = {"consumer": rules.name, "runs": list({run.run_id for run in runs}), "now": now}
    return connection.execute(_cancellation, values).rowcount


_DOUBTED = """
    consumer = :consumer AND provisional AND state IN ('waiting', 'parked') AND claim IS NULL
    AND due_at > 0 AND due_at <= :until
"""
_is_any_doubted = text(f"SELECT 1 FROM dkist_core_inbox WHERE {_DOUBTED} LIMIT 1")  # noqa: S608 - a constant
_runs = text(f"SELECT DISTINCT run_id, workflow, version FROM dkist_core_inbox WHERE {_DOUBTED}")  # noqa: S608
_belief = text(f"UPDATE dkist_core_inbox SET due_at = 0 WHERE {_DOUBTED}")  # noqa: S608


def is_any_doubted(connection: Connection, rules: Rules, until: float) -> bool:
    """Return True if a provisional report was due at a time and is not believed yet."""
    return connection.scalar(_is_any_doubted, {"consumer": rules.name, "until": until}) is not None


def believe(connection: Connection, rules: Rules, until: float, now: float) -> None:
    """
    Have the provisional reports handled that were due at a time, unless a firm one contradicts them.

    It may have come while a worker had the provisional one, which has then failed or was given back.
    """
    values = {"consumer": rules.name, "until": until}
    runs = [RunKey(*row) for row in connection.execute(_runs, values)]
    if runs and cancel(connection, rules, runs, now) and rules.ordered:
        let_go_on(connection, rules.name, runs)
    connection.execute(_belief, values)
