"""
The resources of a process and its descendants, compared with what the kernel states in another place.

The other place is what wait4(2) returns, which `/usr/bin/time -v` prints, the accounts of a control group, and the
known size of the work. Not here: the events that state the resources (test_resources.py).
"""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dkist_processing_core.launcher._control_groups import ControlGroups
from dkist_processing_core.launcher._processes import Family, Usage, high_water_of, io_of, stat_of, usage_of
from dkist_processing_core.launcher._sampling import CREDIT_SECONDS, SMALL_SHARE, Sampler
from dkist_processing_core.launcher._shared_memory import Resident, SharedMemory
from dkist_processing_core.process.exit_status import has_ended, take
from dkist_processing_core.process.peak_memory import peak_memory_bytes
from tests.pace import here
from tests.waiting import wait_until

MIB = 1024 * 1024
READS = """
import os, sys
path, size = sys.argv[1], int(sys.argv[2])
file = os.open(path, os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
while os.read(file, 1 << 20):
    pass
"""
WRITES = """
import os, sys
path, size = sys.argv[1], int(sys.argv[2])
file = os.open(path, os.O_WRONLY | os.O_CREAT)
for _ in range(size >> 20):
    os.write(file, b"x" * (1 << 20))
os.fsync(file)
"""
BURNS = """
import multiprocessing, sys, time
def burn(seconds):
    while time.process_time() < seconds:
        pass
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=burn, args=(float(sys.argv[2]),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
"""
HOLDS = """
import sys, time
held = bytearray(int(sys.argv[2]))
held[::4096] = b"x" * len(held[::4096])
time.sleep(1.0)
"""
FORKS = """
import multiprocessing, sys, time
held = bytearray(int(sys.argv[2]))
held[::4096] = b"x" * len(held[::4096])
with multiprocessing.get_context("fork").Pool(4) as pool:
    pool.map(time.sleep, [0.4] * 4, chunksize=1)
"""
# The parts of real files, of Linux 6.18, and of Linux 5.10 for the process that has ended.
STAT = (
    b"18502 (a) R (b) S 18461 18461 14039 0 -1 4194304 101 0 0 0 150 25 300 50 20 0 7 0 229589 3133440 412 "
    b"18446744073709551615 94347786854400 94347786874281 140727814101200 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 "
    b"94347786890288 94347786891904 94347909443584 140727814109716 140727814109736 140727814109736 140727814111211 0\n"
)
ENDED = (
    b"991 (python3) Z 990 990 14 0 -1 4227084 1100 0 0 0 12 3 0 0 20 0 1 0 4711 0 0 18446744073709551615 "
    b"0 0 0 0 0 0 0 16781312 17642 1 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 9\n"
)
IO = b"rchar: 6976\nwchar: 11\nsyscr: 10\nsyscw: 2\nread_bytes: 8192\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n"
STATUS = b"Name:\tVmHWM: 1 kB\nState:\tS (sleeping)\nVmPeak:\t   3060 kB\nVmHWM:\t    1648 kB\nVmRSS:\t    1600 kB\n"


def sampled(program: str, *arguments: str, group: Path | None = None) -> tuple[dict[str, Any], Any, Sampler]:
    """
    Run a program to its end, and return its sampled totals, what wait4(2) states, and the sampler.
    """
    join = 'exec "$@"' if group is None else f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
    began = time.monotonic()
    process = subprocess.Popen(["/bin/sh", "-c", join, "sh", sys.executable, "-c", program, *arguments])
    sampler = Sampler.begin(process.pid, began)
    wait_until(lambda: has_ended(process.pid))
    sampler.close()
    process.returncode, usage = take(process.pid)
    assert process.returncode == 0
    return sampler.totals(), usage, sampler


def test_the_files_of_a_process_are_read_as_the_kernel_writes_them() -> None:
    """
    The name may hold parentheses; a process that has ended has no memory, and its accounts are left.
    """
    stat, ended = stat_of(STAT), stat_of(ENDED)

    assert stat is not None
    assert ended is not None
    assert (stat.state, stat.parent, stat.threads, stat.started, stat.rss) == ("S", 18461, 7, 229589, 412 * 4096)
    assert (stat.stack, ended.stack) == (140727814101200, 0)
    assert stat.usage == Usage(4.5, 0.75)
    assert stat.children_seconds == 3.5
    assert ended.is_zombie
    assert ended.usage.processor_seconds == pytest.approx(0.15)
    assert io_of(IO) == (6976, 11, 10, 2, 8192, 4096)
    assert high_water_of(STATUS.partition(b"State:")[2]) == 1648 * 1024


@pytest.mark.parametrize("text", [b"", b"1 (x", b"1 (x) S a b", b"rchar: 1\n", b"rchar 1\nwchar: x\n"])
def test_a_file_that_cannot_be_read_states_nothing(text: bytes) -> None:
    """
    A process may end between two reads, and a sandbox may have other files.
    """
    assert stat_of(text) is None
    assert io_of(text) is None
    assert high_water_of(text) is None


def test_reading_a_file_counts_its_bytes(tmp_path: Path) -> None:
    """
    Through system calls as many as it has, from storage as many as wait4 states.
    """
    check_reading(tmp_path, 20 * MIB)


def test_writing_a_file_counts_its_bytes(tmp_path: Path) -> None:
    """
    Through system calls and to storage.
    """
    check_writing(tmp_path, 20 * MIB)


def test_processor_time_is_that_of_all_processes() -> None:
    """
    Two children at the same time, each of which is waited for.
    """
    check_burning(0.5, slack=0.1)


def test_the_peak_of_memory_is_what_a_process_held() -> None:
    """
    As wait4 states it, and as much as it holds.
    """
    check_holding(100 * MIB)


def test_memory_that_forks_share_counts_once() -> None:
    """
    A pool of four processes beside 300 MB holds little more than these, as its control group accounts where it may.
    """
    size = 300 * 1000 * 1000
    with accounted_group("memory") as group:
        totals, _, sampler = sampled(FORKS, "", str(size), group=group)
        charged = None if group is None else peak_memory_of(group)

    assert totals["processes"] == 5
    assert totals["peak_rss"] == pytest.approx(size + 20 * MIB, rel=0.05)
    assert charged is None or totals["peak_rss"] == pytest.approx(charged, rel=0.08)
    assert max(point[1] for point in sampler.profile()) <= totals["peak_rss"]


def process_at(pid: int, parent: int, rss: int, stack: int = 9) -> Resident:
    """
    Return a process with a resident size.
    """
    return Resident(pid, 1, parent, stack, rss)


def test_memory_that_the_kernel_does_not_divide_counts_for_each_process(tmp_path: Path) -> None:
    """
    An old kernel has no such file.
    """
    shared = SharedMemory(str(tmp_path))

    assert shared.held([process_at(1, 0, 100), process_at(2, 1, 90)]) == 190


def test_between_two_readings_a_process_holds_what_it_has_grown_by(tmp_path: Path) -> None:
    """
    A fork that was not read yet holds what it has beyond its parent, and another program all it has.
    """
    for pid in (1, 2):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "smaps_rollup").write_text("1-2 ---p 0 00:00 0 [rollup]\nRss: 100 kB\nPss: 50 kB\n")
    shared = SharedMemory(str(tmp_path))
    kib = 1024
    read = shared.held([process_at(1, 0, 100 * kib), process_at(2, 1, 100 * kib)])
    # As after readings of large processes.
    shared.spent_seconds = 3600.0
    later = [process_at(1, 0, 130 * kib), process_at(2, 1, 100 * kib)]
    grown = shared.held(later)
    forked = shared.held([*later, process_at(3, 1, 135 * kib)])
    started = shared.held([*later, process_at(3, 1, 20 * kib, stack=8)])

    assert (read, grown) == (100 * kib, 130 * kib)
    assert (forked, started) == (135 * kib, 150 * kib)


@pytest.mark.soak
def test_resources_are_right_within_five_percent(tmp_path: Path) -> None:
    """
    200 MB are read, 200 MB written, 300 MB held, and two processors are used for 5 s.
    """
    check_reading(tmp_path, 200 * MIB)
    check_writing(tmp_path, 200 * MIB)
    check_holding(300 * MIB)
    check_burning(5.0, slack=0.0)


def check_reading(folder: Path, size: int) -> None:
    """
    Check what a program has read.
    """
    path = folder / "read"
    with path.open("wb") as file:
        file.write(b"x" * size)
        file.flush()
        os.fsync(file.fileno())

    totals, usage, _ = sampled(READS, str(path), str(size))

    assert totals["rchar"] == pytest.approx(size, rel=0.05, abs=2 * MIB)
    assert totals["syscr"] >= size / MIB
    assert totals["read_bytes"] == pytest.approx(512 * usage.ru_inblock, rel=0.05)


def check_writing(folder: Path, size: int) -> None:
    """
    Check what a program has written.
    """
    totals, usage, _ = sampled(WRITES, str(folder / "written"), str(size))

    assert totals["wchar"] == pytest.approx(size, rel=0.05)
    assert totals["syscw"] == pytest.approx(size / MIB, abs=5)
    assert totals["write_bytes"] == pytest.approx(512 * usage.ru_oublock, rel=0.05)


def check_burning(seconds: float, slack: float) -> None:
    """
    Check the processor time of two processes, and that of their control group where one can be created.
    """
    with accounted_group() as group:
        totals, usage, sampler = sampled(BURNS, "", str(seconds), group=group)
        used = None if group is None else processor_seconds_of(group)

    found = totals["cpu_user_seconds"] + totals["cpu_system_seconds"]
    assert found == pytest.approx(2 * seconds, rel=0.05, abs=here(slack))
    assert found == pytest.approx(usage.ru_utime + usage.ru_stime, rel=0.05)
    assert used is None or found == pytest.approx(used, rel=0.05, abs=slack)
    assert totals["processes"] == 3
    assert sampler.profile()


def check_holding(size: int) -> None:
    """
    Check the peak of one process, which is that of the whole family.
    """
    # The peak that wait4 states begins with that of this process, from which a child inherits it.
    size = max(size, (peak_memory_bytes() or 0) + 64 * MIB)
    totals, usage, sampler = sampled(HOLDS, "", str(size))

    assert totals["peak_rss"] == pytest.approx(1024 * usage.ru_maxrss, rel=0.05)
    assert totals["peak_rss"] == pytest.approx(size + 10 * MIB, rel=0.05, abs=10 * MIB)
    assert sampler.largest_process == totals["peak_rss"]


@contextmanager
def accounted_group(controller: str = "cpuacct") -> Iterator[Path | None]:
    """
    Create a control group that accounts for processor time, or for memory; None if that is not permitted.
    """
    name = f"dkist-core-test-{uuid.uuid4().hex[:8]}"
    for parent in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup"):
        group = Path(parent, name)
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            yield group
        finally:
            group.rmdir()
        return
    yield None


def peak_memory_of(group: Path) -> int | None:
    """
    Return the most memory that a control group was charged for, of either version; None if it does not state that.
    """
    files = [group / "memory.max_usage_in_bytes", group / "memory.peak"]
    return next((int(file.read_text()) for file in files if file.exists()), None)


def processor_seconds_of(group: Path) -> float:
    """
    Return the processor time of a control group, of either version.
    """
    if (group / "cpuacct.usage").exists():
        return int((group / "cpuacct.usage").read_text()) / 1e9
    return int((group / "cpu.stat").read_text().split()[1]) / 1e6


FAMILIES = {
    "a child that is killed with its parent": """
import os, time
if os.fork() == 0:
    while time.process_time() < 0.3: pass
    os.write(1, b"used"); time.sleep(60)
else:
    time.sleep(60)
""",
    "an orphan that lives on": """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        while time.process_time() < 0.3: pass
        os.write(1, b"used"); time.sleep(60)
    os.read(0, 1)
    os._exit(0)
os.wait()
time.sleep(60)
""",
    "a child of a parent that ignores its end": """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork() == 0:
    while time.process_time() < 0.3: pass
    os.write(1, b"used"); time.sleep(60)
else:
    time.sleep(60)
""",
    "a child that is waited for": """
import os, time
if os.fork() == 0:
    while time.process_time() < 0.3: pass
    os.write(1, b"used"); time.sleep(60)
else:
    os.wait(); time.sleep(60)
""",
}


def number_in(family: Family) -> int:
    """
    Look again, and return the number of living processes.
    """
    family.look()
    return family.moment.processes


def has_gone(family: Family, pid: int) -> bool:
    """
    Look again, and return True if a process is dead.
    """
    family.look()
    return pid not in family._members or family._members[pid].stat.is_zombie


@pytest.mark.parametrize("program", FAMILIES.values(), ids=FAMILIES)
def test_what_a_process_has_used_counts_once_however_it_ends(program: str) -> None:
    """
    Whether another process waits for it or none does.
    """
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            family = Family(process.pid)
            # While its parent lives, so that it is found.
            wait_until(lambda: number_in(family) > program.count("fork"))
            process.stdin.close()
            assert process.stdout.read(4) == b"used"
            family.look()
            before = family.used.processor_seconds
            worker = max(family._members.values(), key=lambda each: each.usage.processor_seconds).pid
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: has_gone(family, worker))
            after = family.used.processor_seconds
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    family.look()

    assert before > 0.28
    assert before <= after < before + 0.25
    assert after <= family.used.processor_seconds < before + 0.25


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
def test_an_orphan_that_the_launcher_waits_for_counts_once(is_known: object) -> None:
    """
    Whether it was sampled before or not.
    """
    program = "import time\nwhile time.process_time() < 0.3: pass"
    family = Family(os.getpid())
    family.look()
    before = family.used.processor_seconds - own_seconds()
    with subprocess.Popen([sys.executable, "-c", program]) as orphan:
        if is_known:
            wait_until(lambda: number_in(family) > 1)
        wait_until(lambda: has_ended(orphan.pid))
        # As for a child of another process: this one's accounts are left out below.
        family.reaped(orphan.pid, usage_of(orphan.pid))
        family.look()
        found = family.used.processor_seconds - own_seconds() - before

    assert found == pytest.approx(0.3, abs=0.2)


def own_seconds() -> float:
    """
    Return the processor time of this process, without that of its children.
    """
    return time.process_time()


def test_the_sampler_takes_a_small_share_of_a_processor() -> None:
    """
    For a task of ten processes at most half a percent, apart from the first samples.
    """
    command = "import os, time\nfor _ in range(9):\n    if os.fork() == 0: break\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", command], start_new_session=True)
    began = time.monotonic()
    sampler = Sampler.begin(process.pid, began)
    wait_until(lambda: sampler.family.moment.processes == 10)
    # Until a share that is twice as large would be noticed.
    wait_until(lambda: time.monotonic() - began > 4 * CREDIT_SECONDS / SMALL_SHARE / 2)
    used, age = thread_seconds(sampler), time.monotonic() - began
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    sampler.close()

    assert 0 < used < here(CREDIT_SECONDS + 0.005 * age)


def test_one_slow_sample_is_not_followed_by_a_long_pause() -> None:
    """
    As on a busy machine; the task may grow in the meantime.
    """
    slow: list[float] = []

    def keep(_: dict[str, Any]) -> None:
        until = time.thread_time() + 2 * CREDIT_SECONDS
        while not slow and time.thread_time() < until:
            pass
        slow.append(time.monotonic())

    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        sampler = Sampler.begin(process.pid, time.monotonic(), keep)
        try:
            wait_until(lambda: bool(slow))
            wait_until(lambda: len(slow) > 1, 10)
        finally:
            process.kill()
            sampler.close()

    assert sampler.profile()


def thread_seconds(sampler: Sampler) -> float:
    """
    Return the processor time of a sampler's thread, whose first samples are paid from another account.
    """
    return int(Path(f"/proc/self/task/{sampler._thread.native_id}/schedstat").read_text().split()[0]) / 1e9


def test_limits_and_counters_of_version_2_are_those_of_the_group_and_the_ones_above(tmp_path: Path) -> None:
    """
    The lowest limit holds. The pressure counts from the first reading on, and a kill is one that came after it.
    """
    proc, mountinfo = tmp_path / "proc", tmp_path / "mountinfo"
    groups = tmp_path / "cgroup" / "system.slice" / "worker.service"
    groups.mkdir(parents=True)
    (proc / "1").mkdir(parents=True)
    (proc / "1" / "cgroup").write_text("0::/system.slice/worker.service\n")
    mountinfo.write_text(f"30 23 0:26 / {tmp_path}/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n")
    (groups / "memory.max").write_text("max\n")
    (groups.parent / "memory.max").write_text("2147483648\n")
    (groups / "cpu.max").write_text("150000 100000\n")
    (groups.parent / "cpu.max").write_text("max 100000\n")
    (groups / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n")
    pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    (groups / "cpu.pressure").write_text(pressure.format(1_000_000))

    (groups / "cgroup.events").write_text("populated 1\nfrozen 0\n")

    found = ControlGroups(1, str(proc), str(mountinfo))
    before = found.has_killed
    (groups / "cpu.pressure").write_text(pressure.format(3_500_000))
    (groups / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")

    assert (found.memory_limit_bytes, found.cpu_limit) == (2**31, 1.5)
    assert (found.pressure_seconds("cpu"), found.pressure_seconds("memory")) == (2.5, None)
    assert (before, found.has_killed) == (False, True)


def test_the_pressure_of_the_root_group_is_not_that_of_an_attempt(tmp_path: Path) -> None:
    """
    It is that of the whole host.
    """
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "cgroup").write_text("0::/\n")
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"30 23 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    (tmp_path / "cpu.pressure").write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n")
    of_root = ControlGroups(1, str(tmp_path), str(mountinfo)).pressure_seconds("cpu")
    (tmp_path / "cgroup.events").write_text("populated 1\n")
    of_namespace = ControlGroups(1, str(tmp_path), str(mountinfo)).pressure_seconds("cpu")

    assert (of_root, of_namespace) == (None, 0.0)


def test_limits_and_counters_of_version_1_are_those_of_each_controller(tmp_path: Path) -> None:
    """
    As in a container, whose mounts show a part of the tree; a value without a limit is none.
    """
    proc, mountinfo = tmp_path / "proc", tmp_path / "mountinfo"
    (proc / "1").mkdir(parents=True)
    (proc / "1" / "cgroup").write_text(
        "12:cpu,cpuacct:/docker/0a1b/inner\n9:memory:/docker/0a1b/inner\n1:name=systemd:/docker/0a1b\n0::/\n"
    )
    memory, cpu = tmp_path / "memory", tmp_path / "cpu,cpuacct"
    for folder in (memory, cpu):
        (folder / "inner").mkdir(parents=True)
    mountinfo.write_text(
        f"41 31 0:33 /docker/0a1b {memory} ro,nosuid master:15 - cgroup cgroup rw,memory\n"
        f"42 31 0:30 /docker/0a1b {cpu} ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
    )
    (memory / "memory.limit_in_bytes").write_text("536870912\n")
    (memory / "inner" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (memory / "inner" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    (cpu / "cpu.cfs_quota_us").write_text("-1\n")
    (cpu / "inner" / "cpu.cfs_quota_us").write_text("50000\n")
    (cpu / "inner" / "cpu.cfs_period_us").write_text("100000\n")

    found = ControlGroups(1, str(proc), str(mountinfo))
    (memory / "inner" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")

    assert (found.memory_limit_bytes, found.cpu_limit) == (2**29, 0.5)
    assert found.pressure_seconds("io") is None
    assert found.has_killed


def test_without_readable_files_no_limit_and_no_counter_is_known(tmp_path: Path) -> None:
    """
    In a sandbox without /proc, and for a process whose group lies outside of what is mounted.
    """
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "cgroup").write_text("0::/../outside\n")
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"30 23 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n")

    for found in (ControlGroups(1, str(tmp_path), str(mountinfo)), ControlGroups(2, str(tmp_path), "/nowhere")):
        assert (found.memory_limit_bytes, found.cpu_limit, found.pressure_seconds("cpu")) == (None, None, None)
        assert not found.has_killed
