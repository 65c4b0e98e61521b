"""
A graph as lines of strokes, one line per node, in columns as in `git log --graph`. Pure functions without a terminal.

A node's line shows its edges: edges from above or from the left enter the node, edges that leave it below or to the
right go out. A line without a node only moves lanes, or joins lanes that lead to the same node. Lanes that cross are
not connected. So the drawing shows every edge exactly once.

A lane leads from one node to several, or from several nodes to one, but never from several to several: this would show
edges that do not exist.

Not here: the order of the nodes (draw.order), and the characters (draw.graph).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntFlag

Edge = tuple[str, str]

_WORTH_A_LINE = 2
_WORTH_CROSSING = 4
"""The number of columns by which a lane must move left to justify an extra line, or one that crosses other lanes."""


class Stroke(IntFlag):
    """The sides on which a cell is connected."""

    UP = 1
    DOWN = 2
    LEFT = 4
    RIGHT = 8


@dataclass(slots=True)
class Line:
    """A line of the drawing: the node on it with its column, if there is one, and the strokes of each cell."""

    cells: dict[int, Stroke] = field(default_factory=dict)
    """The strokes by cell number, which is twice the column number; odd cells are between columns."""
    node: str | None = None
    column: int | None = None

    def join(self, columns: Iterable[int], occupied: set[int]) -> None:
        """Draw a horizontal stroke that connects these columns, and passes behind the other lanes."""
        touched = {2 * column for column in columns}
        first, last = min(touched), max(touched)
        for at in range(first, last + 1):
            if at in touched or at % 2 or at // 2 not in occupied:
                sides = (Stroke.LEFT if at > first else Stroke(0)) | (Stroke.RIGHT if at < last else Stroke(0))
                self.cells[at] = self.cells.get(at, Stroke(0)) | sides


@dataclass(eq=False, slots=True)
class _Lane:
    """The nodes that a lane still has to reach, and the column of the last node that it reached."""

    targets: set[str]
    last_column: int | None = None


def lay_out(names: Sequence[str], edges: Iterable[Edge]) -> list[Line]:
    """Return the lines for nodes, which must be ordered so that each node comes after its upstreams."""
    layout = _Layout(names, edges)
    for name in names:
        layout.place(name)
    return layout.lines


class _Layout:
    """The lines so far, and the open lanes below them."""

    def __init__(self, names: Sequence[str], edges: Iterable[Edge]) -> None:
        self.lines: list[Line] = []
        self._lanes: dict[int, _Lane] = {}
        self._downstreams: dict[str, list[str]] = {name: [] for name in names}
        self._upstreams: dict[str, list[str]] = {name: [] for name in names}
        for upstream, downstream in edges:
            self._downstreams[upstream].append(downstream)
            self._upstreams[downstream].append(upstream)

    def place(self, name: str) -> None:
        """Draw a node below the existing lines."""
        pulled = self._pull_left(name)
        incoming = [at for at, lane in self._lanes.items() if name in lane.targets]
        ending = [at for at in incoming if self._lanes[at].targets == {name}]
        column = self._column(incoming, ending) if pulled is None else pulled
        self._keep_apart(column, incoming)

        line = Line(node=name, column=column)
        above = set(self._lanes)
        for at in incoming:
            lane = self._lanes[at]
            lane.targets.discard(name)
            lane.last_column = column if column > at else None
        new, joined, late = self._outgoing(name, column, [self._lanes[at] for at in incoming if at not in ending])
        for at in ending:
            del self._lanes[at]
        self._lanes.update(new)

        self._verticals(line, above, set(self._lanes))
        crossed = (above | set(self._lanes)) - {column}
        line.join([column, *(at for at in incoming if at < column)], crossed)
        line.join([column, *(at for at in [*new, *joined] if at > column)], crossed)
        self.lines.append(line)
        self._merge(late)

    def _column(self, incoming: list[int], ending: list[int]) -> int:
        """Return the leftmost free column to the right of all incoming lanes; an incoming lane may end in it."""
        least = max([0, *ending, *(at + 1 for at in incoming if at not in ending)])
        # Nodes on the same lane are drawn below each other.
        siblings = [at for lane in incoming if (at := self._lanes[lane].last_column) is not None]
        preferred = [at for at in siblings if at >= least and at not in self._lanes]
        if preferred:
            return max(preferred)
        return next(at for at in range(least, least + len(self._lanes) + 1) if at not in self._lanes or at in ending)

    def _outgoing(
        self, name: str, column: int, passing: list[_Lane]
    ) -> tuple[dict[int, _Lane], list[int], list[tuple[int, int]]]:
        """Return the new lanes, the columns of lanes to join on the right, and the pairs of lanes to merge below."""
        alone = [each for each in self._downstreams[name] if self._fans_out(name, each)]
        others = [each for each in self._downstreams[name] if each not in alone]
        required: list[tuple[_Lane, int | None]] = [(_Lane(set(alone)), None)] if alone else []
        joined: list[int] = []
        for target in others:
            there = [at for at, lane in self._lanes.items() if lane.targets == {target}]
            to_the_right = [at for at in there if at > column]
            if to_the_right:
                joined.append(min(to_the_right))
            else:
                required.append((_Lane({target}), max(there) if there else None))
        below_is_free = alone or not any(self._is_shared(target, passing) for target in others)
        new: dict[int, _Lane] = {}
        late: list[tuple[int, int]] = []
        for lane, meant in required:
            first = column if below_is_free or meant is not None else column + 1
            at = next(
                at for at in range(first, first + len(self._lanes) + len(new) + 2) if self._is_free(at, column, new)
            )
            new[at] = lane
            if meant is not None:
                late.append((meant, at))
        return new, joined, late

    def _is_free(self, at: int, column: int, new: dict[int, _Lane]) -> bool:
        return at not in new and (at == column or at not in self._lanes)

    def _fans_out(self, upstream: str, downstream: str) -> bool:
        """Return True if an edge shares a lane with other edges of its upstream, not with those of its downstream."""
        fan_out, fan_in = len(self._downstreams[upstream]), len(self._upstreams[downstream])
        return fan_in == 1 or (fan_out > 1 and fan_out >= fan_in)

    def _is_shared(self, target: str, passing: list[_Lane]) -> bool:
        """Return True if more nodes on one of the lanes lead to the target: they are drawn in the same column."""
        return any(
            len(lane.targets) > 1
            and any(not self._fans_out(each, target) for each in lane.targets & {*self._upstreams[target]})
            for lane in passing
        )

    def _pull_left(self, name: str) -> int | None:
        """Move the lanes that lead only to this node left and return the column; None if it saves too few columns."""
        incoming = [at for at, lane in self._lanes.items() if name in lane.targets]
        if not incoming or any(self._lanes[at].targets != {name} for at in incoming):
            return None
        left = next(at for at in range(max(incoming) + 1) if at not in self._lanes or at in incoming)
        crosses = any(at in self._lanes and at not in incoming for at in range(left, max(incoming)))
        if max(incoming) - left < (_WORTH_CROSSING if crosses else _WORTH_A_LINE):
            return None
        self._merge_into(left, incoming)
        return left

    def _merge(self, pairs: list[tuple[int, int]]) -> None:
        for left, right in pairs:
            self._merge_into(left, [left, right])

    def _merge_into(self, left: int, columns: list[int]) -> None:
        line, above = Line(), set(self._lanes)
        lanes = [self._lanes.pop(at) for at in columns]
        self._lanes[left] = _Lane(lanes[0].targets)
        self._verticals(line, above, set(self._lanes))
        line.join([left, *columns], above)
        self.lines.append(line)

    def _keep_apart(self, column: int, incoming: list[int]) -> None:
        """
        Insert a line between two nodes in one column if the drawing would otherwise show their connection wrongly.

        A node directly below another one is read as connected to it, unless a stroke enters it from the left.
        """
        if self.lines and self.lines[-1].column == column:
            from_above, from_left = column in incoming, any(at < column for at in incoming)
            if from_above == from_left:
                line = Line()
                self._verticals(line, set(self._lanes), set(self._lanes))
                self.lines.append(line)

    @staticmethod
    def _verticals(line: Line, above: set[int], below: set[int]) -> None:
        for at in above | below:
            up = Stroke.UP if at in above else Stroke(0)
            line.cells[2 * at] = up | (Stroke.DOWN if at in below else Stroke(0))


def widest(lines: Iterable[Line]) -> int:
    """Return the width of the widest line in cells."""
    return max((at + 1 for line in lines for at in _used(line)), default=0)


def _used(line: Line) -> Iterator[int]:
    yield from line.cells
    if line.column is not None:
        yield 2 * line.column
