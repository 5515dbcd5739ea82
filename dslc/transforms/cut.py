"""The cheapest set of values from which others can be computed: a minimum vertex cut, by augmenting paths (Edmonds and Karp, 1972)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TypeVar

Node = TypeVar("Node")
_INFINITE = 1 << 62


def cheapest_cut(
    weights: Mapping[Node, int], edges: Iterable[tuple[Node, Node]], sources: Iterable[Node], sinks: Iterable[Node]
) -> set[Node]:
    """The nodes of least total weight that every path from `sources` to `sinks` meets, the latest such set where several weigh the same.

    Sources and sinks may be chosen themselves. Nodes are those of `weights`; the order of the arguments decides nothing.
    """
    number = {node: i for i, node in enumerate(weights)}
    source, sink = 2 * len(number), 2 * len(number) + 1  # node i is the arc from 2 * i to 2 * i + 1
    room: list[dict[int, int]] = [{} for _ in range(2 * len(number) + 2)]

    def arc(a: int, b: int, capacity: int) -> None:
        room[a][b] = room[a].get(b, 0) + capacity
        room[b].setdefault(a, 0)

    for node, weight in weights.items():
        arc(2 * number[node], 2 * number[node] + 1, weight)
    for a, b in edges:
        arc(2 * number[a] + 1, 2 * number[b], _INFINITE)
    for node in sources:
        arc(source, 2 * number[node], _INFINITE)
    for node in sinks:
        arc(2 * number[node] + 1, sink, _INFINITE)
    while (path := _path(room, source, sink)) is not None:
        flow = min(room[i][j] for i, j in path)
        for i, j in path:
            room[i][j] -= flow
            room[j][i] += flow
    behind = _reaching(room, sink)
    return {node for node, i in number.items() if 2 * i + 1 in behind and 2 * i not in behind}


def _path(room: list[dict[int, int]], source: int, sink: int) -> list[tuple[int, int]] | None:
    """A shortest path with room left."""
    came: dict[int, int] = {source: source}
    waiting = deque([source])
    while waiting:
        at = waiting.popleft()
        for to, left in room[at].items():
            if left > 0 and to not in came:
                came[to] = at
                waiting.append(to)
    if sink not in came:
        return None
    path = []
    while sink != source:
        path.append((came[sink], sink))
        sink = came[sink]
    return path


def _reaching(room: list[dict[int, int]], sink: int) -> set[int]:
    """What still has room on a way to the sink."""
    found, waiting = {sink}, [sink]
    while waiting:
        at = waiting.pop()
        for before in room[at]:
            if before not in found and room[before][at] > 0:
                found.add(before)
                waiting.append(before)
    return found
