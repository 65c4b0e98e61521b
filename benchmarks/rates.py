"""
Messages per second: draining the outbox and publishing in bulk, compared with the peers.

The archive stream is the primary setting, since it is where the library's events go. A durable classic queue in its
place is the second, for comparison with published figures.
"""

from collections import defaultdict
from dataclasses import dataclass

from benchmarks.corpus import KIB
from benchmarks.figures import Findings
from benchmarks.ground import Ground, Side, run
from benchmarks.plan import Plan

WINDOW = 1000
IN_FLIGHT = 500
BATCH = 250
"""How many events one `publish` of the bulk rows gets: the next group is encoded while the last one is delivered."""

DRAIN = Side("draining", "library_drain")
BULK = Side("bulk publishing", "library_bulk", options={"batch": BATCH, "encoded": False, "size": KIB})
BULK_ENCODED = Side("bulk publishing, encoded before", "library_bulk", options={"batch": BATCH, "encoded": True})
OURS = (DRAIN, BULK, BULK_ENCODED)

CEILING = Side("pika, unconfirmed", "pika_unconfirmed", is_peer=True)
PIPELINED = Side(
    f"pika, confirms pipelined, window {WINDOW}", "pika_confirmed", is_peer=True, options={"window": WINDOW}
)
AIO_PIKA = Side(
    f"aio-pika with uvloop, {IN_FLIGHT} in flight",
    "aio_pika_windowed",
    is_peer=True,
    options={"window": IN_FLIGHT},
)
FASTSTREAM = Side(
    f"FastStream with uvloop, {IN_FLIGHT} in flight",
    "faststream_windowed",
    is_peer=True,
    options={"window": IN_FLIGHT},
)
KOMBU = Side("kombu, each confirmed", "kombu_confirmed", is_peer=True)
TALUS_KEPT = Side("talus, kept connection", "talus_producer", is_peer=True, options={"kept": True})
TALUS = Side("talus, connection per event", "talus_producer", is_peer=True, options={"kept": False})
PEERS = (PIPELINED, AIO_PIKA, FASTSTREAM, KOMBU, TALUS_KEPT, TALUS, CEILING)

# A slow side gets fewer messages: its rate does not depend on their number, and the others' rounds come sooner.
_COUNTS = {TALUS.label: 300, KOMBU.label: 4000, TALUS_KEPT.label: 4000, BULK.label: 10_000}
_COUNT = 20_000
_LARGE_COUNT = 5000
_WARM_UP, _WARM_UP_EACH = 100, 5


@dataclass(frozen=True)
class Setting:
    """The destination of the messages, and their size."""

    name: str
    archive: str = "stream"
    size: int = KIB
    ours: tuple[Side, ...] = OURS
    peers: tuple[Side, ...] = PEERS


PRIMARY = Setting("1 KiB to the archive stream")
SETTINGS = (
    PRIMARY,
    Setting("1 KiB to a durable classic queue", "classic", ours=(DRAIN, BULK), peers=(PIPELINED, AIO_PIKA, TALUS)),
    Setting("16 KiB to the archive stream", size=16 * KIB, ours=(DRAIN, BULK), peers=(PIPELINED, AIO_PIKA)),
)


def measure(ground: Ground, plan: Plan) -> Findings:
    """Return the rates of all sides in all settings."""
    findings = Findings()
    for setting in SETTINGS:
        rates = _rates(ground, plan, setting)
        for ours in setting.ours:
            for peer in setting.peers:
                name = f"{ours.label}, {setting.name}"
                findings.add(name, "messages/s", rates[ours.label], rates[peer.label], peer.label)
        findings.rates[setting.name] = rates
    return findings


def _rates(ground: Ground, plan: Plan, setting: Setting) -> dict[str, list[float]]:
    rates = defaultdict(list)
    for side in plan.turns((*setting.ours, *setting.peers)):
        most = _COUNT if setting.size == KIB else _LARGE_COUNT
        count = plan.count(min(most, _COUNTS.get(side.label, most)))
        warm_up = _WARM_UP_EACH if side is TALUS else _WARM_UP
        with ground.job(count, size=setting.size, warm_up=warm_up, archive=setting.archive) as job:
            options = {"options": side.options | ({"size": setting.size} if side in OURS else {})}
            found = run(Side(side.label, side.program, side.is_peer, **options), job, ground.folder)
        rates[side.label].append(count / found["seconds"])
    return dict(rates)
