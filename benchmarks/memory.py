"""Memory of a publisher that is cut off from its broker for a long time, compared with an idle one."""

from benchmarks.figures import Findings
from benchmarks.ground import Ground, Run, Side
from benchmarks.plan import Plan

EVENTS = 100_000
LIMIT_MIB = 30
_SIDE = Side("publisher", "library_outage")


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return the memory at the end of the outage and after it; measured once, because it hardly varies."""
    count = plan.count(EVENTS)
    with ground.job(count) as job:
        publisher = Run(_SIDE, job, ground.folder)
        try:
            publisher.wait_until_ready()
            # Ports and data are kept, so the same broker comes back.
            ground.node.stop()
            publisher.begin()
            publisher.wait_until_ready()
            ground.node.start()
            publisher.begin()
            found = publisher.result()
        finally:
            publisher.end()
            ground.node.start()
    findings = Findings()
    idle = [found["idle"]["VmHWM"]]
    for name, moment in (("cut off", "cut_off"), ("caught up", "caught_up")):
        peak = [found[moment]["VmHWM"]]
        findings.add(f"peak memory, {name} with {count:,} events", "MiB", peak, idle, "the same process, idle before")
        growth = [found[moment]["VmHWM"] - found["idle"]["VmHWM"]]
        findings.add(f"memory grown, {name} with {count:,} events", "MiB", growth, [LIMIT_MIB], "the limit")
    findings.notes["memory"] = found
    return findings
