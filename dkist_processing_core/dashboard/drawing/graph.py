"""
The layout of a workflow's graph from left to right: where its nodes are, and the curves of its edges.

It depends on the graph alone, so that no node moves while a run goes on. Sugiyama's method of igraph orders the nodes
of a column so that few edges cross. Not here: the states of the tasks (one_run.graph), and the drawing
itself, which is a template.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise

import igraph

from dkist_processing_core.events import Graph

NODE_WIDTH, NODE_HEIGHT = 208.0, 48.0
"""The size of each node in pixels."""
_GAP_BETWEEN_COLUMNS, _GAP_BETWEEN_NODES = 44.0, 12.0
_MARGIN = 20.0
# Edges that lead back are drawn below their nodes, within the margin and the gap.
_DEPTH_OF_BACK = 16.0
# An edge over several columns has a bend in each column between. Beyond this number, edges have no further bends.
_MOST_BENDS = 4000
_MOST_LAYOUTS = 64
# A layout that is higher than its fullest column by this factor is compacted.
_MOST_SPREAD = 1.5
_HALF_OF_BEND = 0.15
_Edge = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Node:
    """A node: its number from 0, its name, its column, and the place of its upper left corner in pixels."""

    number: int
    name: str
    column: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge between two nodes, as the data of an SVG path."""

    upstream: str
    downstream: str
    path: str


@dataclass(frozen=True, slots=True)
class GraphLayout:
    """The places of a graph's nodes and edges within its width and height, in pixels."""

    width: float
    height: float
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    path: str
    """All edges as the data of one SVG path."""


@lru_cache(maxsize=_MOST_LAYOUTS)
def laid_out(graph: Graph) -> GraphLayout:
    """
    Return the layout of a graph, equal for equal graphs.

    A node that only an edge names is a node as well. An edge that closes a circle is drawn below its nodes.
    """
    names = list(dict.fromkeys([*graph.nodes, *(name for edge in graph.edges for name in edge)]))
    numbers = {name: number for number, name in enumerate(names)}
    edges = list(dict.fromkeys((numbers[upstream], numbers[downstream]) for upstream, downstream in graph.edges))
    forward, back = _without_circles(len(names), edges)
    columns = _columns(len(names), forward)
    bends, pieces = _with_bends(len(names), forward, columns)
    heights = _heights(
        len(names), columns + [column for columns_of_edge in bends.values() for column in columns_of_edge], pieces
    )
    width_of_column = NODE_WIDTH + _GAP_BETWEEN_COLUMNS
    nodes = tuple(
        Node(number, name, columns[number], _MARGIN + columns[number] * width_of_column, _MARGIN + heights[number])
        for number, name in enumerate(names)
    )
    first_bend = len(names)
    drawn: dict[_Edge, str] = {}
    for edge in forward:
        places = range(first_bend, first_bend + len(bends[edge]))
        first_bend += len(places)
        passed = [
            (_MARGIN + column * width_of_column, _MARGIN + heights[place] + NODE_HEIGHT / 2)
            for column, place in zip(bends[edge], places, strict=True)
        ]
        drawn[edge] = _path(nodes[edge[0]], passed, nodes[edge[1]])
    drawn |= {edge: _path_back(nodes[edge[0]], nodes[edge[1]]) for edge in back}
    lowest = max(heights, default=0.0) + (NODE_HEIGHT if names else 0.0)
    return GraphLayout(
        width=2 * _MARGIN + (max(columns, default=-1) + 1) * width_of_column - (_GAP_BETWEEN_COLUMNS if names else 0.0),
        height=2 * _MARGIN + lowest,
        nodes=nodes,
        edges=tuple(Edge(names[edge[0]], names[edge[1]], drawn[edge]) for edge in edges),
        path="".join(drawn.values()),
    )


def _without_circles(count: int, edges: Iterable[_Edge]) -> tuple[list[_Edge], list[_Edge]]:
    """Return the edges without those that close a circle, and those: the ones that lead to a node being visited."""
    downstreams: dict[int, list[int]] = defaultdict(list)
    for upstream, downstream in edges:
        downstreams[upstream].append(downstream)
    forward: list[_Edge] = []
    back: list[_Edge] = []
    # Of a node whose downstreams are being visited it is True, and False afterwards.
    is_open: dict[int, bool] = {}
    for root in range(count):
        if root in is_open:
            continue
        is_open[root] = True
        path = [(root, iter(downstreams[root]))]
        while path:
            node, rest = path[-1]
            for downstream in rest:
                if is_open.get(downstream):
                    back.append((node, downstream))
                    continue
                forward.append((node, downstream))
                if downstream not in is_open:
                    is_open[downstream] = True
                    path.append((downstream, iter(downstreams[downstream])))
                    break
            else:
                is_open[node] = False
                path.pop()
    return sorted(forward), back


def _columns(count: int, edges: Sequence[_Edge]) -> list[int]:
    """Return the column of each node: after all its upstreams, and a node without upstreams next to a downstream."""
    downstreams: dict[int, list[int]] = defaultdict(list)
    pending = [0] * count
    for upstream, downstream in edges:
        downstreams[upstream].append(downstream)
        pending[downstream] += 1
    roots = [node for node in range(count) if not pending[node]]
    columns, ready = [0] * count, list(roots)
    for node in ready:
        for downstream in downstreams[node]:
            columns[downstream] = max(columns[downstream], columns[node] + 1)
            pending[downstream] -= 1
            if not pending[downstream]:
                ready.append(downstream)
    for root in roots:
        columns[root] = min((columns[each] - 1 for each in downstreams[root]), default=0)
    return columns


def _with_bends(
    count: int, edges: Sequence[_Edge], columns: Sequence[int]
) -> tuple[dict[_Edge, list[int]], list[_Edge]]:
    """
    Return the columns in which each edge bends, and the edges between neighbouring columns, in which bends are nodes.

    Short edges have their bends first, so that those of long edges do not use up what there may be.
    """
    left = _MOST_BENDS
    bends: dict[_Edge, list[int]] = {edge: [] for edge in edges}
    for edge in sorted(edges, key=lambda each: (columns[each[1]] - columns[each[0]], each)):
        between = list(range(columns[edge[0]] + 1, columns[edge[1]]))
        if len(between) > left:
            break
        left -= len(between)
        bends[edge] = between
    pieces: list[_Edge] = []
    next_bend = count
    for edge in edges:
        if columns[edge[1]] - columns[edge[0]] - 1 != len(bends[edge]):
            continue
        stations = [edge[0], *range(next_bend, next_bend + len(bends[edge])), edge[1]]
        next_bend += len(bends[edge])
        pieces += pairwise(stations)
    return bends, pieces


def _heights(nodes: int, columns: list[int], edges: list[_Edge]) -> list[float]:
    """Return the distance of each node, and of each bend after these, from the top, in pixels, by Sugiyama's method."""
    if not columns:
        return []
    layout = igraph.Graph(len(columns), edges, directed=True).layout_sugiyama(layers=columns)
    places = [float(layout[node][0]) for node in range(len(columns))]
    by_column: dict[int, list[int]] = defaultdict(list)
    for node, column in enumerate(columns):
        by_column[column].append(node)
    for in_column in by_column.values():
        # igraph promises the distance only as far as its own rounding goes.
        in_column.sort(key=lambda node: (places[node], node))
        for before, node in pairwise(in_column):
            places[node] = max(places[node], places[before] + 1.0)
    if max(places) - min(places) > _MOST_SPREAD * max(map(len, by_column.values())):
        places = _compacted(places, by_column, nodes)
    first = min(places)
    return [(place - first) * (NODE_HEIGHT + _GAP_BETWEEN_NODES) for place in places]


def _compacted(places: Sequence[float], by_column: dict[int, list[int]], nodes: int) -> list[float]:
    """
    Return the places with the least height in which what was level stays level, and what was above stays above.

    Bends need less room than nodes, of which there are so many.
    """
    column_of = {node: column for column, in_column in by_column.items() for node in in_column}
    compacted = list(places)
    above: dict[int, tuple[float, float]] = {}
    lowest = 0.0
    for _, group in groupby(sorted(column_of, key=places.__getitem__), key=places.__getitem__):
        level = list(group)
        for node in level:
            if column_of[node] in above:
                place, half = above[column_of[node]]
                lowest = max(lowest, place + half + _half(node, nodes))
        for node in level:
            compacted[node] = lowest
            above[column_of[node]] = lowest, _half(node, nodes)
    return compacted


def _half(node: int, nodes: int) -> float:
    return 0.5 if node < nodes else _HALF_OF_BEND


def _path(start: Node, passed: Sequence[tuple[float, float]], end: Node) -> str:
    """Return the curve from the right side of a node to the left side of another one, level in the columns between."""
    x, y = start.x + NODE_WIDTH, start.y + NODE_HEIGHT / 2
    parts = [f"M{x:.1f} {y:.1f}"]
    for left, middle in (*passed, (end.x, end.y + NODE_HEIGHT / 2)):
        half = (x + left) / 2
        parts.append(f"C{half:.1f} {y:.1f} {half:.1f} {middle:.1f} {left:.1f} {middle:.1f}")
        x, y = left + NODE_WIDTH, middle
        parts.append(f"H{x:.1f}")
    return "".join(parts[:-1])


def _path_back(start: Node, end: Node) -> str:
    """Return the curve below two nodes, from the first to the second, which may be the same."""
    quarter = NODE_WIDTH / 4
    from_x, to_x = start.x + 3 * quarter, end.x + quarter
    from_y, to_y = start.y + NODE_HEIGHT, end.y + NODE_HEIGHT
    return (
        f"M{from_x:.1f} {from_y:.1f}C{from_x:.1f} {from_y + _DEPTH_OF_BACK:.1f} "
        f"{to_x:.1f} {to_y + _DEPTH_OF_BACK:.1f} {to_x:.1f} {to_y:.1f}"
    )
