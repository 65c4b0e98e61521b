"""
Many processes that publish at the same instant, on one journal.

Not here: what a journal does that is not free at all (test_degradation.py).
"""

from dkist_processing_core.bus import adopt, open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.running import run_python

STORM = """
import os, sys
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.publisher import Publisher
from tests.facts import progressed

settings = DKISTProcessingCoreConfiguration()
barrier, begin = os.pipe()
results, result = os.pipe()
for number in range({count}):
    if os.fork() == 0:
        os.close(begin)
        os.read(barrier, 1)
        with Publisher.open(settings) as publisher:
            for sequence in range(3):
                publisher.publish(progressed(f"T{{number}}", sequence))
        os.write(result, f"{{publisher._waited}} {{len(publisher._memory)}}\\n".encode())
        os._exit(0)
os.close(result)
os.close(begin)
with open(results) as lines:
    print(lines.read())
"""


COUNT = 40


def test_of_many_processes_at_once_each_waits_no_longer_than_its_limit_and_nothing_is_lost() -> None:
    """
    What the shared journal has no time for is on disk beside it, and all of it is there once that is taken over.
    """
    done = run_python(STORM.format(count=COUNT), {})

    assert done.returncode == 0, done.stderr[-2000:]
    found = [line.split() for line in done.stdout.splitlines() if line]
    assert (len(found), {kept_in_memory for _, kept_in_memory in found}) == (COUNT, {"0"})
    # A pause of a hundredth of a second may be under way when the limit comes.
    assert max(float(waited) for waited, _ in found) < 2.5
    with open_bus(DKISTProcessingCoreConfiguration()).open_journal() as journal:
        adopt(journal)
        entries = journal.read(0, 4 * COUNT)
        assert len({entry.message.properties.message_id for entry in entries}) == 3 * COUNT
        names = sorted(path.name for path in journal.path.parent.iterdir())
    assert [name for name in names if name.count(".") > 1] == []
