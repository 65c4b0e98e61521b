"""
The memory of a recorder: values that a kill of their writer at any byte leaves whole, and the ring of the log.
"""

import itertools
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.process.descriptors import open_numbers
from dkist_processing_core.recorder import layout, region
from dkist_processing_core.recorder.reading import read
from tests.waiting import wait_until

SECTIONS = (layout.IDENTITY, layout.STATE, layout.STACKS, layout.SAMPLES, layout.LOG_END)


class Watched(bytearray):
    """
    Memory that keeps each write, so that a test can repeat a part of them.
    """

    def __init__(self) -> None:
        """
        Begin empty.
        """
        super().__init__(layout.REGION_BYTES)
        self.writes: list[tuple[int, bytes]] = []

    def __setitem__(self, place: slice, value: bytes) -> None:  # type: ignore[override]
        """
        Write, and keep what was written.
        """
        super().__setitem__(place, value)
        self.writes.append((place.start or 0, bytes(value)))

    def cut_at(self, count: int) -> bytearray:
        """
        Return the memory as it is if its writer is killed after so many bytes.
        """
        memory = bytearray(layout.REGION_BYTES)
        for start, value in self.writes:
            part = value[: max(0, count)]
            memory[start : start + len(part)] = part
            count -= len(value)
        return memory

    @property
    def size(self) -> int:
        """
        How many bytes were written.
        """
        return sum(len(value) for _, value in self.writes)


@given(st.data())
def test_a_cut_at_any_byte_leaves_the_newest_or_an_older_value_whole(data: st.DataObject) -> None:
    """
    Of each section, whatever was written to the others in between.
    """
    memory = Watched()
    done: dict[int, list[tuple[int, bytes]]] = {index: [(0, b"")] for index in range(len(SECTIONS))}
    for index, content in data.draw(
        st.lists(st.tuples(st.sampled_from(range(len(SECTIONS))), st.binary(max_size=40)), min_size=1, max_size=12)
    ):
        SECTIONS[index].write(memory, len(done[index]), content, 1.0)
        done[index].append((memory.size, content))
    count = data.draw(st.integers(0, memory.size))

    cut = memory.cut_at(count)

    for index, section in enumerate(SECTIONS):
        found = section.read(cut)
        newest = max(number for number, (end, _) in enumerate(done[index]) if end <= count)
        assert (0 if found is None else found[0]) == newest
        assert found is None or found[1].content == done[index][newest][1]


LINES = st.lists(st.integers(1, layout.LONGEST_LINE), min_size=1, max_size=60)


@given(LINES, st.data())
def test_a_cut_at_any_byte_leaves_the_last_lines_of_the_log_whole(lengths: list[int], data: st.DataObject) -> None:
    """
    As many as the ring holds beside the longest line, which may be half written.
    """
    lines = [f"{number:x}".encode().rjust(length, b".")[-length:-1] + b"\n" for number, length in enumerate(lengths)]
    memory, end, ends = Watched(), 0, [(0, 0)]
    for number, line in enumerate(lines, 1):
        end = layout.append(memory, number, end, line, 1.0)
        ends.append((memory.size, number))
    count = data.draw(st.one_of(st.integers(0, memory.size), st.just(memory.size)))

    found = layout.log_of(memory.cut_at(count))

    written = b"".join(lines[: max(number for size, number in ends if size <= count)])
    content = b"" if found is None else found.content
    assert written.endswith(content)
    assert len(content) >= min(len(written), layout.LOG_BYTES - 2 * layout.LONGEST_LINE)
    assert not content or content == written or written[: -len(content)].endswith(b"\n")


def test_a_log_that_is_read_while_it_is_written_has_no_overwritten_line() -> None:
    """
    A writer that overtakes the reader leaves it only the lines that it has not reached.
    """

    class Overtaken(bytearray):
        """
        Memory to which more lines are appended while the ring is copied.
        """

        def __getitem__(self, place: slice) -> bytes:  # type: ignore[override]
            found = bytes(super().__getitem__(place))
            if place.stop - place.start == layout.LOG_BYTES:
                numbers = itertools.count(1001)
                for number in itertools.islice(numbers, 500):
                    self.end = layout.append(self, number, self.end, b"new" * 20 + b"\n", 2.0)
            return found

        end = 0

    memory = Overtaken(layout.REGION_BYTES)
    for number in range(1, 1001):
        memory.end = layout.append(memory, number, memory.end, f"{number:078d}\n".encode(), 1.0)

    found = layout.log_of(memory)

    assert found is not None
    lines = found.content.splitlines()
    assert [int(line) for line in lines] == list(range(1001 - len(lines), 1001))
    assert len(lines) * 79 <= layout.LOG_BYTES - 500 * 61 - layout.LONGEST_LINE


def test_a_value_that_is_too_long_is_refused_and_changes_nothing() -> None:
    """
    The error states both lengths.
    """
    memory = Watched()
    layout.STATE.write(memory, 1, b"before", 1.0)

    with pytest.raises(ValueError, match="found 4073 bytes for a part of a recorder, expected at most 4072"):
        layout.STATE.write(memory, 2, bytes(4073), 1.0)

    found = layout.STATE.read(memory)
    assert found is not None
    assert found[1].content == b"before"


def in_fork(made: region.Region, endlessly: bool) -> int:  # noqa: FBT001 - one flag of a private function
    """
    Return a fork that attaches to a recorder and writes into it, as a task's process does.
    """
    assert made.descriptor is not None
    child = os.fork()
    if child:
        return child
    try:
        own = region.attach(os.dup(made.descriptor))
        for number in itertools.count(1):
            own.write(layout.STACKS, f"{number:05d}".encode() * 6000)
            own.append(f"{number}\n".encode() * 300)
            if not endlessly:
                break
    finally:
        os._exit(0)


@pytest.mark.parametrize("folder", [None, "state"])
def test_the_launcher_reads_what_another_process_has_recorded(
    folder: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    From memory, and from a file that no other process can find where the kernel has no such memory.
    """
    if folder:
        monkeypatch.delattr(os, "memfd_create")
    before = open_numbers()
    made = region.create(None if folder is None else str(tmp_path))
    assert made is not None
    assert made.descriptor is not None
    made.write(layout.IDENTITY, b'{"pid": 3}')
    os.waitpid(in_fork(made, endlessly=False), 0)

    seen = read(made.descriptor)
    target = Path(f"/proc/self/fd/{made.descriptor}").readlink().name
    is_inherited = os.get_inheritable(made.descriptor)
    made.close()

    assert (seen.pid, seen.stack, seen.top_frame) == (3, "00001" * 6000, None)
    assert seen.log == "\n".join(["1"] * 300)
    assert (seen.stack_age or 0.0) >= 0.0
    assert seen.phase is None
    assert (list(tmp_path.iterdir()), is_inherited) == ([], False)
    assert region.NAME in target
    assert open_numbers() == before


def test_without_memory_and_folder_there_is_no_recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Neither is an error, and no descriptor is left.
    """
    monkeypatch.delattr(os, "memfd_create")
    before = open_numbers()

    made = [region.create(None), region.create(str(tmp_path / "missing"))]

    assert made == [None, None]
    assert open_numbers() == before


def test_a_kill_in_the_middle_of_writing_leaves_whole_values() -> None:
    """
    A process that does nothing but write is killed at many moments.
    """
    made = region.create(None)
    assert made is not None
    seen = set()
    for number in range(30):
        child = in_fork(made, endlessly=True)
        wait_until(lambda: read(made).log is not None)
        signal.sigtimedwait([], 0.001 * number + 0.005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = read(made)
        assert found.log is not None
        assert all(int(line) > 0 for line in found.log.splitlines())
        if found.stack is not None:
            seen.add(len({found.stack[at : at + 5] for at in range(0, len(found.stack), 5)}))
    made.close()

    assert seen == {1}


def test_what_is_no_recorder_is_refused(tmp_path: Path) -> None:
    """
    Such as a file of the author's that got the number.
    """
    path = tmp_path / "file"
    path.write_bytes(bytes(layout.REGION_BYTES))
    with path.open("r+b") as file, pytest.raises(ValueError, match="expected a recorder"):
        read(file.fileno())
    path.write_bytes(b"short")
    with path.open("r+b") as file, pytest.raises(ValueError, match="mmap length"):
        region.attach(file.fileno())
