"""
The order in which a graph is drawn: one branch after the other, so that few lanes are open at the same time.

Not here: the lanes (draw.lanes).
"""

from collections.abc import Iterable, Sequence


def drawing_order(names: Sequence[str], edges: Iterable[tuple[str, str]]) -> list[str]:
    """
    Return the nodes of an acyclic graph, each after all its upstreams, and next to the last of them if possible.

    Among equal nodes, the one that is named first comes first. A node without upstreams is placed when it is needed.

    >>> drawing_order(["in", "a", "b", "a2", "b2"], [("in", "a"), ("in", "b"), ("a", "a2"), ("b", "b2")])
    ['in', 'a', 'a2', 'b', 'b2']
    """
    upstreams: dict[str, set[str]] = {name: set() for name in names}
    downstreams: dict[str, set[str]] = {name: set() for name in names}
    for upstream, downstream in edges:
        upstreams[downstream].add(upstream)
        downstreams[upstream].add(downstream)
    place: dict[str, int] = {}

    def nearness(name: str) -> tuple[int, bool]:
        if upstreams[name]:
            return max(place[upstream] for upstream in upstreams[name]), True
        return -1, any(place.keys() & upstreams[downstream] for downstream in downstreams[name])

    left = list(names)
    while left:
        ready = [name for name in left if upstreams[name] <= place.keys()]
        chosen = max(ready, key=nearness)
        place[chosen] = len(place)
        left.remove(chosen)
    return list(place)
