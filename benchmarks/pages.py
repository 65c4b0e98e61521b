"""
The pages of the dashboard at its size: with few and with millions of attempts, their times, and the room of an attempt.

Not here: the store (many_attempts), the process that renders the pages (sides.dashboard_pages), and a browser.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime
from itertools import islice, permutations

from sqlalchemy import func, select, text

from benchmarks.consuming import POSTGRESQL, SQLITE, Databases
from benchmarks.figures import Findings, percentile
from benchmarks.ground import ROOT, Ground
from benchmarks.many_attempts import fill
from benchmarks.plan import Plan
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.tables import ATTEMPTS, DETAILS, METADATA
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.dashboard.addresses.links import address as address_of
from dkist_processing_core.dashboard.addresses.links import compare_address, run_address
from dkist_processing_core.identity import Run
from dkist_processing_core.inbox import Database
from tests.services.postgres import PostgresServer

FEW_ATTEMPTS, MANY_ATTEMPTS = 10_000, 5_000_000
LIMIT = "limit"
PAGE_MS, ATTEMPT_BYTES = 100.0, 2048.0
NOW, RUNS_PAGE, RUN = "Now", "Runs with the chart", "Run"
NOW_THEN, RUN_THEN = f"{NOW} in the past", f"{RUN} in the past"
PAGES_AIMED = (NOW, RUNS_PAGE, RUN)
"""The pages that have an aim."""
_OPENED = 10
_SIDE_SECONDS = 600.0
Opened = Callable[[], AbstractContextManager[str]]


def page_name(page: str, size: str, database: str) -> str:
    """Return the name of the row with the times of a page."""
    return f"{page}, {size}, {database}, p95"


def room_name(size: str, database: str) -> str:
    """Return the name of the row with the room of an attempt."""
    return f"room of an attempt, {size}, {database}"


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return the figures for each database and size; one round, since the stores are large."""
    findings = Findings()
    with both_databases(ground) as kinds:
        for name, opened in kinds.items():
            for count in (FEW_ATTEMPTS, MANY_ATTEMPTS):
                attempts = plan.count(count)
                with opened() as address, closing(Database.open(address, DKISTProcessingCoreConfiguration())) as store:
                    shown = fill(store, attempts)[:_OPENED]
                    add_store(findings, store, address, shown, f"{attempts:,} attempts", name)
    return findings


@contextmanager
def both_databases(ground: Ground) -> Iterator[dict[str, Opened]]:
    """Yield what opens an empty database of each kind, and removes it."""
    server = PostgresServer(is_durable=True)
    server.start()
    try:
        yield {SQLITE: lambda: _file(ground), POSTGRESQL: Databases(server).database}
    finally:
        server.close()


def add_store(findings: Findings, database: Database, address: str, shown: list[Run], size: str, name: str) -> None:
    """Add the room of an attempt in a store, and the times of the pages that show it."""
    attempts, room, apart = _room(database)
    findings.add(room_name(size, name), "bytes", [room / attempts], [ATTEMPT_BYTES], LIMIT)
    findings.add(f"{room_name(size, name)}, details apart", "bytes", [apart / attempts], [room / attempts], "the rest")
    found = _rendered(address, _pages(shown, _middles(database, shown)))
    for page, times in found["times"].items():
        row = page_name(page, size, name)
        findings.add(row, "ms", [percentile(times, 0.95)], [PAGE_MS], LIMIT)
        findings.add(row.replace("p95", "median"), "ms", [percentile(times, 0.5)], [PAGE_MS], LIMIT)
    memory = f"memory of the process that renders the pages, {size}, {name}, peak"
    findings.add(memory, "MiB", [found["peak"]], [found["before"]], "before the first page")


def _middles(database: Database, shown: list[Run]) -> list[datetime]:
    """Return for each run a time at which it went on: that of the report in the middle, by their own times."""
    with database.reading() as connection:
        found = [Questions(connection).whole_run(run) for run in shown]
    return [each.changes[len(each.changes) // 2] for each in found if each is not None]


def _pages(shown: list[Run], middles: list[datetime]) -> dict[str, list[str]]:
    """
    Return the addresses of each measured page.

    Args:
        shown: The runs that pages show.
        middles: For each of them a time at which it went on.
    """
    workflow = shown[0].workflow_name
    pairs = islice(((a, b) for a, b in permutations(shown, 2) if a.workflow_name == b.workflow_name), _OPENED)
    return {
        NOW: ["/"],
        # Copies have the reports of the runs that are copied, so that these are what went on then.
        NOW_THEN: [address_of("/", at=each.isoformat()) for each in middles],
        RUNS_PAGE: ["/runs"],
        "Runs, the second part": [address_of("/runs", first=50)],
        "Runs, failed": [address_of("/runs", state="failed")],
        "Runs, finished, by duration": [address_of("/runs", state="finished", sort="duration")],
        "Runs, of a workflow": [address_of("/runs", workflow=workflow)],
        "Runs, of a recipe run": [address_of("/runs", recipe=shown[0].recipe_run_id)],
        "Runs, with a text": [address_of("/runs", q=shown[-1].run_id)],
        RUN: [run_address(each) for each in shown],
        RUN_THEN: [run_address(run, at=at.isoformat()) for run, at in zip(shown, middles, strict=True)],
        "Workflow": [address_of("/workflow", name=workflow)],
        "Failures": ["/failures"],
        "Failures, ever": [address_of("/failures", since="ever")],
        "Compare": [compare_address(a, b) for a, b in pairs],
    }


def _rendered(address: str, pages: dict[str, list[str]]) -> dict[str, dict[str, list[float]] | float]:
    """Return what a process reports that renders pages: their times, and its memory."""
    command = [sys.executable, "-m", "benchmarks.sides.dashboard_pages", address]
    wanted = json.dumps({page: addresses for page, addresses in pages.items() if addresses})
    done = subprocess.run(
        command, cwd=ROOT, input=wanted, stdout=subprocess.PIPE, text=True, check=True, timeout=_SIDE_SECONDS
    )
    found: dict[str, dict[str, list[float]] | float] = json.loads(done.stdout)
    return found


def _room(database: Database) -> tuple[int, float, float]:
    """Return the number of attempts, and the bytes of the store with its indexes, without the details and of these."""
    tables = [table.name for table in METADATA.sorted_tables]
    with database.reading() as connection:
        attempts = connection.scalar(select(func.count()).select_from(ATTEMPTS)) or 1
        if database.dialect == "sqlite":
            sizes = text("SELECT tbl_name, sum(pgsize) FROM dbstat JOIN sqlite_schema USING (name) GROUP BY tbl_name")
        else:
            # As autovacuum does in time: reports wait in a table for their fold only.
            connection.exec_driver_sql("VACUUM")
            sizes = text("SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r'")
        found: dict[str, float] = {name: float(size) for name, size in connection.execute(sizes)}
    apart = found[DETAILS.name]
    return attempts, sum(found.get(name, 0.0) for name in tables) - apart, apart


@contextmanager
def _file(ground: Ground) -> Iterator[str]:
    with ground.state_dir() as folder:
        yield f"sqlite:///{folder}/inbox.db"
