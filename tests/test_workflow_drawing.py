"""
Tests of drawing a workflow's graph: it can be read back, it fits, and common shapes have the expected drawing.

Not here: the choice of workflows (test_cli_workflows).
"""

from collections.abc import Iterable, Sequence
from textwrap import dedent

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dkist_processing_core import ResourceQueue
from dkist_processing_core.cli.draw.graph import Task, draw_graph
from dkist_processing_core.cli.draw.order import drawing_order

Edges = Sequence[tuple[str, str]]

UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8
SIDES = {
    "│": UP | DOWN, "─": LEFT | RIGHT,
    "╭": DOWN | RIGHT, "╮": DOWN | LEFT, "╰": UP | RIGHT, "╯": UP | LEFT,
    "├": UP | DOWN | RIGHT, "┤": UP | DOWN | LEFT,
    "┬": DOWN | LEFT | RIGHT, "┴": UP | LEFT | RIGHT, "┼": UP | DOWN | LEFT | RIGHT,
}  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn, most: int = 14) -> tuple[list[str], list[tuple[str, str]]]:
    """
    Return any acyclic graph, with few or many edges, connected or not.
    """
    count = draw(st.integers(1, most))
    names = [f"T{number}" for number in range(count)]
    pairs = [(upper, lower) for at, lower in enumerate(names) for upper in names[:at]]
    density = draw(st.sampled_from([1, 2, 4, 8]))
    chosen = draw(st.lists(st.integers(1, 8), min_size=len(pairs), max_size=len(pairs)))
    return names, [pair for pair, roll in zip(pairs, chosen, strict=True) if roll <= density]


def drawn(names: Iterable[str], edges: Edges, *, width: int | None = None, ascii_only: bool = False) -> list[str]:
    """
    Return the lines of a drawing.
    """
    lines = draw_graph([Task(name) for name in names], edges, width=width, ascii_only=ascii_only)
    return [line.plain for line in lines]


class Reader:
    """
    Reads a drawing from the top down, by its strokes alone.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        """
        Read the lines, and store their tasks and edges.
        """
        self.tasks: list[str] = []
        self.edges: list[tuple[str, str]] = []
        # The cells in which lanes come down, with the tasks from which they come.
        self.lanes: dict[int, set[str]] = {}
        # The task right above, whose lane may come down if the next line continues it.
        self.offered: dict[int, set[str]] = {}
        for line in lines:
            self.read(line)
        assert self.lanes == {}, "a lane leads nowhere"

    def read(self, line: str) -> None:
        """
        Read a line, with a task on it, or with lanes that move or join.
        """
        mark = line.find("●")
        sides = {at: SIDES[each] for at, each in enumerate(line[:mark] if mark >= 0 else line) if each != " "}
        if mark >= 0:
            name = line.split()[-2]
            strokes = line[mark + 1 :].partition(name)[0]
            sides |= {at: SIDES[each] for at, each in enumerate(strokes, mark + 1) if each != " "}
        taken = {at for at, each in sides.items() if each & UP}
        assert set(self.lanes) <= taken | {mark}, "a lane breaks off"
        alive = self.lanes | {at: names for at, names in self.offered.items() if at in taken}
        assert taken <= set(alive), "a lane comes from nowhere"
        below = {at: alive[at] if each & UP else set() for at, each in sides.items() if each & DOWN}
        if mark < 0:
            for start in [at for at, each in sides.items() if each & RIGHT and each & (UP | DOWN) and not each & LEFT]:
                group = [start, *touched(sides, start, 1)]
                together = set().union(*(alive.get(at, set()) for at in group))
                below |= {at: together for at in group if at in below}
            self.offered = {}
        else:
            left = touched(sides, mark, -1)
            # A task right below another task is its downstream, unless lanes on its left lead to it.
            above = alive.get(mark, set()) if left else (self.offered | alive).get(mark, set())
            upstreams = above.union(*(alive[at] for at in left))
            self.tasks.append(name)
            self.edges += [(upstream, name) for upstream in upstreams]
            below |= {at: below[at] | {name} for at in touched(sides, mark, 1)}
            self.offered = {mark: {name}}
        self.lanes = below


def touched(sides: dict[int, int], start: int, step: int) -> list[int]:
    """
    Return the cells that a stroke touches on its way from a cell; it passes behind vertical strokes.
    """
    towards, onwards = (RIGHT, LEFT) if step < 0 else (LEFT, RIGHT)
    cells = []
    at = start + step
    while at in sides and (sides[at] == UP | DOWN or sides[at] & towards):
        if sides[at] not in (UP | DOWN, LEFT | RIGHT):
            cells.append(at)
        if not sides[at] & onwards and sides[at] != UP | DOWN:
            break
        at += step
    return cells


@given(graphs())
@example((list("ABCDEF"), [(a, b) for a in "ABC" for b in "DEF"]))
@example((list("ABCD"), []))
def test_every_task_and_every_edge_is_in_the_drawing_once(graph: tuple[list[str], Edges]) -> None:
    """
    The strokes lead to all edges of the graph, and to no other.
    """
    names, edges = graph

    read = Reader(drawn(names, edges))

    assert sorted(read.tasks) == sorted(names)
    assert sorted(read.edges) == sorted(edges)


@given(graphs(40), st.integers(40, 120), st.booleans())
def test_no_drawing_is_wider_than_the_terminal(graph: tuple[list[str], Edges], width: int, ascii_only: bool) -> None:  # noqa: FBT001
    """
    If the lanes do not fit, a list names each task once, and its upstreams by their numbers.
    """
    names, edges = graph

    lines = drawn(names, edges, width=width, ascii_only=ascii_only)

    assert max(map(len, lines)) <= width
    assert sorted(word for line in lines for word in line.split() if word.startswith("T")) == sorted(names)


@given(graphs())
def test_the_order_is_one_in_which_tasks_can_run(graph: tuple[list[str], Edges]) -> None:
    """
    Each task comes once, below all its upstreams.
    """
    names, edges = graph

    order = drawing_order(names, edges)

    assert sorted(order) == sorted(names)
    assert all(order.index(upstream) < order.index(downstream) for upstream, downstream in edges)


@given(graphs())
def test_a_simple_terminal_shows_the_same_strokes(graph: tuple[list[str], Edges]) -> None:
    """
    A dot leads down, an apostrophe up, and a plus in both directions, so that the drawing stays unambiguous.
    """
    names, edges = graph
    simpler = str.maketrans("│─╭╮┬╰╯┴├┤┼●", "|-...'''+++o")

    lines = drawn(names, edges, ascii_only=True)

    assert lines == [line.translate(simpler) for line in drawn(names, edges)]
    assert all(line.isascii() for line in lines)


def fan(*middle: str) -> list[tuple[str, str]]:
    """
    Return the edges from A to each task, and from each to Z.
    """
    return [("A", each) for each in middle] + [(each, "Z") for each in middle]


@pytest.mark.parametrize(
    ("names", "edges", "expected"),
    [
        pytest.param(
            "ABCD",
            [("A", "B"), ("B", "C"), ("C", "D")],
            """
            ●  A  default
            ●  B  default
            ●  C  default
            ●  D  default
            """,
            id="chain",
        ),
        pytest.param(
            "ABCZ",
            fan("B", "C"),
            """
            ●    A  default
            ├─●  B  default
            ●─┤  C  default
              ●  Z  default
            """,
            id="diamond",
        ),
        pytest.param(
            "ABCDEZ",
            fan("B", "C", "D", "E"),
            """
            ●      A  default
            ├─●─╮  B  default
            ├─●─┤  C  default
            ├─●─┤  D  default
            ╰─●─┤  E  default
            ╭───╯
            ●      Z  default
            """,
            id="fan",
        ),
        pytest.param(
            "ABCD",
            [("A", "B"), ("C", "D")],
            """
            ●  A  default
            ●  B  default

            ●  C  default
            ●  D  default
            """,
            id="apart",
        ),
        pytest.param(
            "ABCDEF",
            [(upper, lower) for upper in "ABC" for lower in "DEF"],
            """
            ●        A  default
            │ ●      B  default
            │ │ ●    C  default
            ├─┼─┼─●  D  default
            ├─┼─┼─●  E  default
            ├─┴─╯
            ●        F  default
            """,
            id="each-with-each",
        ),
        pytest.param(
            "ABCDE",
            [("A", "B"), ("B", "C"), ("A", "D"), ("C", "E"), ("D", "E"), ("A", "E")],
            """
            ●      A  default
            ├─●    B  default
            │ ●    C  default
            ├─│─●  D  default
            │ ├─╯
            ╰─┴─●  E  default
            """,
            id="long-edge",
        ),
    ],
)
def test_common_shapes_look_as_they_should(names: str, edges: Edges, expected: str) -> None:
    """
    Chains run straight down, branches are beside each other, and unconnected parts are separated.
    """
    assert drawn(names, edges) == dedent(expected).strip("\n").splitlines()


def test_queue_and_extras_stand_beside_their_task() -> None:
    """
    They have a column, or are below the name if the column does not fit.
    """
    tasks = [Task("Parse"), Task("CalibrateScience" * 2, ResourceQueue.HIGH_MEMORY, ("asdf", "frozen"))]
    edges = [("Parse", tasks[1].name)]

    wide = [line.plain for line in draw_graph(tasks, edges, width=80)]
    narrow = [line.plain for line in draw_graph(tasks, edges, width=40)]

    assert wide == [
        "●  Parse                             default",
        "●  CalibrateScienceCalibrateScience  high_memory [asdf,frozen]",
    ]
    assert narrow == [
        "●  Parse",
        "│    default",
        "●  CalibrateScienceCalibrateScience",
        "     high_memory [asdf,frozen]",
    ]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_longest_names_are_broken_and_not_cut(width: int) -> None:
    """
    Names and lists of extras that are longer than a line are shown in full.
    """
    names = [letter * 100 for letter in "AB"]
    extras = tuple(f"extra{number}" for number in range(12))
    tasks = [Task(name, ResourceQueue.MULTI_CORE, extras) for name in names]

    lines = [line.plain for line in draw_graph(tasks, [(names[0], names[1])], width=width)]

    assert max(map(len, lines)) <= width
    words = "".join("".join(line.split()) for line in lines).translate({ord("●"): None, ord("│"): None})
    assert words == "".join(f"{name}multi_core[{','.join(extras)}]" for name in names)


def test_a_dense_graph_is_a_list_where_it_has_no_room() -> None:
    """
    The numbers name the upstreams of a task.
    """
    names = [f"T{number}" for number in range(12)]
    edges = [(upper, lower) for at, lower in enumerate(names) for upper in names[:at]]

    lines = drawn(names, edges, width=40)

    assert lines[:3] == [" 1  T0   default", " 2  T1   default, after 1", " 3  T2   default, after 1, 2"]


def test_a_workflow_without_tasks_draws_nothing() -> None:
    """
    The drawing is empty.
    """
    assert drawn([], [], width=80) == []
