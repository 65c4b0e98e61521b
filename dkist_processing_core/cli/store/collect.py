"""
`dkist-core collect`: the service that keeps the store of runs, its dump, and building it again.

Not here: the store itself (collect).
"""

from dkist_processing_core.cli.store.reading import open_collector, out_of_date
from dkist_processing_core.text import counted
from dkist_processing_core.text.console import print_remark
from dkist_processing_core.text.terminal import interrupt_ends, write_line


def collect_until_ended(*, until_idle: bool, health: str | None, listen: str | None) -> None:
    """
    Keep the store up to date until SIGTERM or Ctrl-C, or with `until_idle` until nothing is left to take in.

    Raises:
        BusError: With `until_idle`, the broker cannot be reached or used.
    """
    with open_collector(migrates=True) as collector:
        if until_idle:
            error = collector.catch_up()
            if error is not None:
                raise error
            return
        print_remark(f"collecting the runs of {collector.bus.where} into {collector.where}; press Ctrl-C to end")
        with interrupt_ends():
            collector.run(health=health, listen=listen)


def dump_store() -> None:
    """
    Write the store as canonical JSON.

    Raises:
        BusError: The broker cannot be reached or used; the store was written as it was.
    """
    with open_collector() as collector:
        error = collector.catch_up()
        for line in collector.dump():
            write_line(line)
        if error is not None:
            raise out_of_date(error, collector.completed_at())


def rebuild_store(*, forget: bool) -> None:
    """
    Build the store again from the events that the bus still has.

    Raises:
        DKISTProcessingCoreError: Runs would be lost that only the store has, unless `forget` allows that.
    """
    with open_collector(migrates=True) as collector:
        runs = collector.rebuild(forget=forget)
        print_remark(f"the store {collector.where} was built again: {counted(runs, 'run')}")
