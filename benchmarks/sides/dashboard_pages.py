"""
The dashboard's pages, rendered from an open store as its server does it: it reports their times and its memory.

Not here: the choice of the pages, and the store (pages).
"""

import json
import sys
import time
from pathlib import Path
from urllib.parse import parse_qsl

from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.dashboard.app import PAGES
from dkist_processing_core.dashboard.backend import Backend
from dkist_processing_core.dashboard.bus.letters import Letters
from dkist_processing_core.dashboard.bus.status import BusStatus
from dkist_processing_core.dashboard.html.viewing import Viewing
from dkist_processing_core.dashboard.http.access import Role
from dkist_processing_core.dashboard.options import options
from dkist_processing_core.dashboard.site import Site

_TIMES, _LEAST_TIMES, _SECONDS = 40, 5, 20.0
_KIB = 1024
_OK = 200


def main() -> None:
    """Render the pages on standard input from the store at an address; each a number of times, or for some seconds."""
    address, pages = sys.argv[1], json.load(sys.stdin)
    settings = DKISTProcessingCoreConfiguration().model_copy(update={"dkist_core_inbox": address})
    with Collector(settings) as collector:
        site = Site("bus", "", "", BusStatus(settings), Letters(settings))
        backend = Backend(site)
        backend.report = lambda: (True, {"consumers": [{"bus": "ok"}]})
        backend.open_store(collector)
        viewing = Viewing(PAGES, options(settings).rules, backend)
        before = _peak()
        times = {page: _times(viewing, addresses) for page, addresses in pages.items()}
    print(json.dumps({"times": times, "before": before, "peak": _peak()}))


def _times(viewing: Viewing, addresses: list[str]) -> list[float]:
    """Return how long the addresses of a page take in turn, in milliseconds; the first time of each is left out."""
    found: list[float] = []
    end = time.monotonic() + _SECONDS
    for number in range(-len(addresses), _TIMES):
        path, _, query = addresses[number % len(addresses)].partition("?")
        began = time.perf_counter()
        body, status = viewing.whole(path, dict(parse_qsl(query)), Role.READER)
        if number >= 0:
            found.append((time.perf_counter() - began) * 1000)
        assert status == _OK, f"{path}?{query}: {status}"
        assert body.endswith("</html>"), path
        if len(found) >= _LEAST_TIMES and time.monotonic() > end:
            break
    return found


def _peak() -> float:
    """Return the peak of the memory; that of `getrusage` begins with that of the process that started this one."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / _KIB


if __name__ == "__main__":
    main()
