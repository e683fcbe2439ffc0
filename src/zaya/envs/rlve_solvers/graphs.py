"""Solvers for tasks of RLVE-Gym that ship no answer: graphs, trees, grids and sequences.

A solver reads the parameters of a problem as its prompt states them and gives the text of an answer that is right. It
knows nothing of what the package computes: a best value that stands beside the parameters is not looked at, so that a
solver and a scorer can be held against each other. Where the honest way is a search, a problem too large for it gives
None. Used by the audit of `envs.rlve` as an oracle. Source: spec post-training 8.2, 8.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain, combinations, combinations_with_replacement, pairwise, product
from types import MappingProxyType
from typing import Any

Parameters = Mapping[str, Any]
Edge = tuple[int, int, int]
"""Two vertices and a weight."""

_MOST_CHOICES = 20_000
"""How many combinations a search may look at."""

# networkx is imported where it is used: it comes with the extra `envs`, and takes a while to load.


def _line(values: Iterable[object]) -> str:
    return " ".join(map(str, values))


def _lines(rows: Iterable[Iterable[object]]) -> str:
    return "\n".join(map(_line, rows))


def _adjacent(size: int, edges: Iterable[Sequence[int]]) -> list[list[int]]:
    """The neighbours of each vertex, whatever else the edges hold."""
    adjacent: list[list[int]] = [[] for _ in range(size)]
    for u, v, *_ in edges:
        adjacent[u].append(v)
        adjacent[v].append(u)
    return adjacent


def _search(adjacent: Sequence[Sequence[int]], start: int) -> dict[int, int]:
    """Breadth first: each vertex that can be reached, nearest first, and where it is reached from."""
    parent = {start: start}
    queue = [start]
    for vertex in queue:
        for neighbour in adjacent[vertex]:
            if neighbour not in parent:
                parent[neighbour] = vertex
                queue.append(neighbour)
    return parent


def _trail(parent: Mapping[int, int], goal: int) -> list[int]:
    """The way from where the search began to `goal`."""
    path = [goal]
    while parent[path[-1]] != path[-1]:
        path.append(parent[path[-1]])
    return path[::-1]


def _cheapest_cover(costs: Sequence[int], covers: Sequence[int], needed: int) -> tuple[int, ...]:
    """Which sets to take to cover all bits of `needed` at least cost: whatever covers the lowest of them is tried."""

    @cache
    def best(needed: int) -> tuple[int, tuple[int, ...]]:
        if needed == 0:
            return 0, ()
        lowest = needed & -needed
        tries = []
        for i, covered in enumerate(covers):
            if covered & lowest:
                cost, chosen = best(needed & ~covered)
                tries.append((cost + costs[i], (i, *chosen)))
        return min(tries)

    return best(needed)[1]


def _matching(options: Sequence[Iterable[int]]) -> dict[int, int]:
    """A largest matching by augmenting paths: right -> left, where `options[left]` lists what left may have."""
    owner: dict[int, int] = {}

    def find(left: int, seen: set[int]) -> bool:
        for right in options[left]:
            if right not in seen:
                seen.add(right)
                if right not in owner or find(owner[right], seen):
                    owner[right] = left
                    return True
        return False

    for left in range(len(options)):
        find(left, set())
    return owner


def _spanning_tree(vertices: Iterable[int], edges: Iterable[Edge]) -> list[Edge] | None:
    """A spanning tree of least weight, by Kruskal; None where the vertices are not connected."""
    root = {vertex: vertex for vertex in vertices}
    tree: list[Edge] = []

    def find(vertex: int) -> int:
        while root[vertex] != vertex:
            vertex = root[vertex]
        return vertex

    for u, v, weight in sorted(edges, key=lambda edge: edge[2]):
        if u in root and v in root and find(u) != find(v):
            root[find(u)] = find(v)
            tree.append((u, v, weight))
    return tree if len(tree) == len(root) - 1 else None


# Points, intervals and sequences.


def _axis_k_center(parameters: Parameters) -> str:
    """Points of one centre lie in a row and their median is its best place: dynamic programming over the rows."""
    positions = parameters["X"]

    @cache
    def best(end: int, centres: int) -> tuple[float, tuple[int, ...]]:
        if centres == 0:
            return (0, ()) if end == 0 else (math.inf, ())
        tries = []
        for start in range(end):
            median = (start + end) // 2
            cost, chosen = best(start, centres - 1)
            tries.append((cost + sum(abs(x - positions[median]) for x in positions[start:end]), (*chosen, median)))
        return min(tries, default=(math.inf, ()))

    return _line(best(len(positions), parameters["K"])[1])


def _tree_constrained_permutation(parameters: Parameters) -> str | None:
    """Dynamic programming over the sets that can stand in front."""
    weights, before = parameters["W"], parameters["A"]
    if len(weights) > 14:
        return None

    @cache
    def best(placed: int) -> tuple[int, tuple[int, ...]]:
        place = placed.bit_count() + 1
        tries = []
        for i, weight in enumerate(weights):
            is_free = before[i] == 0 or placed >> (before[i] - 1) & 1
            if is_free and not placed >> i & 1:
                total, rest = best(placed | 1 << i)
                tries.append((total + weight * place, (i + 1, *rest)))
        return max(tries, default=(0, ()))

    return _line(best(0)[1])


def _point_segment_matching(parameters: Parameters) -> str:
    """A largest matching of a bipartite graph."""
    points = parameters["points"]
    inside = [[c for c, x in enumerate(points) if low <= x <= high] for low, high in parameters["segments"]]
    return _lines(_matching(inside).items())


def _palembang_bridges(parameters: Parameters) -> str | None:
    """The cost is linear between the ends of the journeys, so some ends are best places: all of them are tried."""
    journeys = list(zip(parameters["S"], parameters["T"], strict=True))
    ends = sorted(set(chain.from_iterable(journeys)))
    if math.comb(len(ends) + parameters["K"] - 1, parameters["K"]) > _MOST_CHOICES:
        return None

    def cost(places: tuple[int, ...]) -> int:
        return sum(min(abs(place - s) + abs(place - t) for place in places) for s, t in journeys)

    return _line(min(combinations_with_replacement(ends, parameters["K"]), key=cost))


def _matching_subsequence(parameters: Parameters) -> str:
    """Dynamic programming: the most matches of the first items, of which some number is kept."""
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for i, value in enumerate(parameters["A"]):
        for kept, (matches, chosen) in sorted(best.items(), reverse=True):
            taken = (matches + (value == kept + 1), (*chosen, i))
            best[kept + 1] = max(best.get(kept + 1, taken), taken)
    return _line(max(best.values())[1])


def _segment_coverage(parameters: Parameters) -> str | None:
    """As few segments as possible are left out, smallest numbers first."""
    segments, constraints = parameters["segments"], parameters["constraints"]
    if 2 ** len(segments) > _MOST_CHOICES:
        return None

    def is_allowed(chosen: Sequence[int]) -> bool:
        return all(sum(segments[i][0] <= p <= segments[i][1] for i in chosen) <= most for p, most in constraints)

    numbers = range(len(segments))
    return next(
        _line(c) for size in reversed((*numbers, len(segments))) for c in combinations(numbers, size) if is_allowed(c)
    )


def _interval_coverage(parameters: Parameters) -> str:
    """A flow of least cost along the axis: over point i runs NEED[i], intervals lead on, and idle cover leads back."""
    import networkx as nx

    intervals, need = parameters["intervals"], [0, *parameters["NEEDS"], 0]
    graph = nx.DiGraph()
    for i, (before, after) in enumerate(pairwise(need)):
        graph.add_node(i, demand=before - after)
    for i in range(1, len(parameters["NEEDS"]) + 1):
        graph.add_edge(i, i - 1, weight=0)
    cheapest: dict[tuple[int, int], int] = {}
    for i, (left, right, _) in sorted(enumerate(intervals), key=lambda item: -item[1][2]):
        cheapest[left - 1, right] = i
    for (start, end), i in cheapest.items():
        graph.add_edge(start, end, weight=intervals[i][2])
    flow = nx.min_cost_flow(graph)
    times = [0] * len(intervals)
    for (start, end), i in cheapest.items():
        times[i] = flow[start][end]
    return _line(times)


def _protecting_flowers(parameters: Parameters) -> str:
    """Smith's rule: in the order of T / D, as swapping two neighbours shows. No D is 0."""
    times, damage = parameters["T"], parameters["D"]
    common = math.lcm(*damage)
    return _line(i + 1 for i in sorted(range(len(times)), key=lambda i: times[i] * (common // damage[i])))


def _land_acquisition(parameters: Parameters) -> str:
    """What fits under another item is free beside it; the others, widest first, are cut into rows of neighbours."""
    widths, lengths = parameters["W"], parameters["L"]
    under: dict[int, list[int]] = {}
    longest = -1
    for i in sorted(range(len(widths)), key=lambda i: (-widths[i], -lengths[i])):
        if longest < 0 or lengths[i] > lengths[longest]:
            longest = i
            under[i] = []
        under[longest].append(i + 1)
    outer = list(under)
    best: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    for end in range(1, len(outer) + 1):
        costs = [(best[s][0] + widths[outer[s]] * lengths[outer[end - 1]], (*best[s][1], s)) for s in range(end)]
        best.append(min(costs))
    cuts = [*best[-1][1], len(outer)]
    return _lines(chain.from_iterable(under[i] for i in outer[start:end]) for start, end in pairwise(cuts))


def _max_mult_split(parameters: Parameters) -> str:
    """Dynamic programming over the rest of the digits and the parts it is split into."""
    digits = parameters["string"]

    @cache
    def best(start: int, parts: int) -> tuple[int, tuple[str, ...]]:
        if parts == 1:
            return int(digits[start:]), (digits[start:],)
        tries = []
        for end in range(start + 1, len(digits) - parts + 2):
            value, rest = best(end, parts - 1)
            tries.append((int(digits[start:end]) * value, (digits[start:end], *rest)))
        return max(tries)

    return _line(best(0, parameters["K"] + 1)[1])


def _max_xor_set(parameters: Parameters) -> str:
    """A basis by elimination, each member with the indices it is made of; then greedily from the highest bit."""
    basis: dict[int, tuple[int, int]] = {}
    for i, value in enumerate(parameters["A"]):
        members = 1 << i
        while value and value.bit_length() in basis:
            other, others = basis[value.bit_length()]
            value, members = value ^ other, members ^ others
        if value:
            basis[value.bit_length()] = (value, members)
    total = chosen = 0
    for _, (value, members) in sorted(basis.items(), reverse=True):
        if total ^ value > total:
            total, chosen = total ^ value, chosen ^ members
    return _line(i for i in range(len(parameters["A"])) if chosen >> i & 1)


def _min_sum_prefix_xor(parameters: Parameters) -> str:
    """A free entry sets where the next run of fixed ones starts from: every bit goes with the majority of the run."""
    entries = parameters["P"]
    sums: list[int] = []
    for i, entry in enumerate(entries):
        if entry != -1:
            sums.append((sums[-1] if sums else 0) ^ entry)
            continue
        run = [0]
        for fixed in entries[i + 1 :]:
            if fixed == -1:
                break
            run.append(run[-1] ^ fixed)
        width = max(run).bit_length()
        sums.append(sum(1 << bit for bit in range(width) if 2 * sum(value >> bit & 1 for value in run) > len(run)))
    return _line(value ^ before for before, value in pairwise([0, *sums]))


# Paths and trees.


def _ratio_path(parameters: Parameters) -> str:
    """Ranges of weights by their ratio: the first whose edges join both ends, as a better path would come sooner."""
    edges, goal = parameters["edges"], parameters["N"] - 1
    weights = sorted({weight for _, _, weight in edges})
    common = math.lcm(*weights)
    ranges = [(low, high) for low in weights for high in weights if low <= high]
    for low, high in sorted(ranges, key=lambda ends: ends[1] * (common // ends[0])):
        parent = _search(_adjacent(parameters["N"], [edge for edge in edges if low <= edge[2] <= high]), 0)
        if goal in parent:
            return _line(_trail(parent, goal))
    raise AssertionError("the graph is connected")


def _longest_path(parameters: Parameters) -> str | None:
    """Dynamic programming over where the path is and what it has been to."""
    size = parameters["N"]
    if size > 12:
        return None
    onwards: list[list[tuple[int, int]]] = [[] for _ in range(size)]
    for s, t, weight in parameters["edges"]:
        onwards[s].append((t, weight))

    @cache
    def best(vertex: int, visited: int) -> tuple[int, tuple[int, ...]]:
        tries: list[tuple[int, tuple[int, ...]]] = [(0, (vertex,))]
        for t, weight in onwards[vertex]:
            if not visited >> t & 1:
                total, path = best(t, visited | 1 << t)
                tries.append((total + weight, (vertex, *path)))
        return max(tries)

    return _line(max(best(vertex, 1 << vertex) for vertex in range(size))[1])


def _maximum_visited(parameters: Parameters) -> str:
    """Down to the deepest vertex; each two steps that are left visit one more, there and back, on the way."""
    adjacent = _adjacent(parameters["N"], parameters["edges"])
    steps, parent = parameters["M"], _search(adjacent, 0)
    path = max((_trail(parent, vertex) for vertex in parent), key=len)
    spare = max(0, steps - (len(path) - 1))
    visited = {*path, *[vertex for vertex in parent if vertex not in path][: spare // 2]}
    walk: list[int] = []

    def tour(vertex: int) -> None:
        walk.append(vertex)
        for child in adjacent[vertex]:
            if parent[child] == vertex and child in visited and child not in path:
                tour(child)
                walk.append(vertex)

    for vertex in path:
        tour(vertex)
    while len(walk) <= steps:
        walk.append(walk[-2])
    return _line(walk[: steps + 1])


def _conversion_to_cycle(parameters: Parameters) -> str:
    """Of all vertices that come from the same one, the dearest keeps its edge; where the kept edges close a cycle, the
    cheapest of its vertices gives way to the next dearest. The paths that are left are joined end to end."""
    before, costs = parameters["A"], parameters["C"]
    size = len(before)
    by_origin: dict[int, list[int]] = {}
    for vertex in sorted(range(size), key=lambda vertex: -costs[vertex]):
        by_origin.setdefault(before[vertex], []).append(vertex)
    after = {origin: vertices[0] for origin, vertices in by_origin.items()}

    def loss(origin: int) -> int:
        first, *others = by_origin[origin]
        return costs[first] - (costs[others[0]] if others else 0)

    for start in range(size):
        path = [start]
        while (following := after.get(path[-1])) is not None and following not in path:
            path.append(following)
        if following != start:
            continue
        weakest = min(path, key=loss)
        if len(by_origin[weakest]) > 1:
            after[weakest] = by_origin[weakest][1]
        else:
            del after[weakest]
    order: list[int] = []
    for start in set(range(size)) - set(after.values()):
        order.append(start)
        while order[-1] in after:
            order.append(after[order[-1]])
    result = {vertex: order[i - 1] for i, vertex in enumerate(order)}
    return _line(result[vertex] for vertex in range(size))


def _tree_coverage(parameters: Parameters) -> str | None:
    """A cheapest cover; vertices are numbered breadth first, which keeps together what is covered together."""
    size = parameters["N"]
    if size > 20:
        return None
    adjacent = _adjacent(size, parameters["edges"])
    number = {vertex: i for i, vertex in enumerate(_search(adjacent, 0))}
    covers = []
    for vertex in range(size):
        parent = _search(adjacent, vertex)
        near = [other for other in parent if len(_trail(parent, other)) - 1 <= parameters["D"]]
        covers.append(sum(1 << number[other] for other in near))
    needed = sum(1 << number[vertex] for vertex in parameters["covered_vertices"])
    return _line(_cheapest_cover(parameters["W"], covers, needed))


def _path_cover(parameters: Parameters) -> str:
    """A circulation of least cost with one unit or more on every edge, which then is taken apart into paths."""
    import networkx as nx

    edges = parameters["edges"]
    graph = nx.DiGraph()
    graph.add_nodes_from(range(1, parameters["N"] + 1), demand=0)
    for s, t, weight in edges:
        graph.add_edge(s, t, weight=weight)
        graph.nodes[s]["demand"] += 1  # for the unit that leaves there anyway
        graph.nodes[t]["demand"] -= 1
    graph.add_node("end", demand=0)
    graph.add_edges_from(((vertex, "end") for vertex in range(2, parameters["N"] + 1)), weight=0)
    graph.add_edge("end", 1, weight=0)
    extra = nx.min_cost_flow(graph)
    left = {(s, t): 1 + extra[s][t] for s, t, _ in edges}
    paths = []
    while any(left.values()):
        path = [1]
        while (step := next((edge for edge, units in left.items() if edge[0] == path[-1] and units), None)) is not None:
            left[step] -= 1
            path.append(step[1])
        paths.append(path)
    return _lines(paths)


def _steiner_tree(parameters: Parameters) -> str | None:
    """A best tree is a least spanning tree of its own vertices: all sets that hold the given ones are tried."""
    given = set(parameters["to_be_connected"])
    others = sorted(set(range(parameters["N"])) - given)
    if len(others) > 10:
        return None
    sets = (given.union(extra) for count in range(len(others) + 1) for extra in combinations(others, count))
    trees = (tree for vertices in sets if (tree := _spanning_tree(vertices, parameters["edges"])) is not None)
    best = min(trees, key=lambda tree: sum(weight for _, _, weight in tree))
    return _line(end for u, v, _ in best for end in (u, v))


def _dominating_ancestor(parameters: Parameters) -> str | None:
    """All choices of K vertices."""
    size, parents, costs = parameters["N"], parameters["parents"], parameters["C"]
    if math.comb(size, parameters["K"]) > _MOST_CHOICES // 4:
        return None

    def cost(chosen: tuple[int, ...]) -> int:
        total = 0
        for vertex in range(1, size + 1):
            at = vertex
            while at != 0 and at not in chosen:
                at, weight = parents[at]
                total += costs[vertex] * weight
        return total

    return _line(min(combinations(range(1, size + 1), parameters["K"]), key=cost))


def _weighted_spanning_tree(parameters: Parameters) -> str | None:
    """Dynamic programming over what is not yet in the tree and its deepest layer; the next one is any set beside it."""
    size = parameters["N"]
    if size > 8:
        return None
    weights = {(u, v): weight for a, b, weight in parameters["edges"] for u, v in ((a, b), (b, a))}
    missing = math.inf

    @cache
    def best(left: int, layer: int, depth: int) -> tuple[float, tuple[int, ...]]:
        if left == 0:
            return 0, ()
        edge = {
            v: min((weights.get((u, v), missing), u) for u in range(size) if layer >> u & 1)
            for v in range(size)
            if left >> v & 1
        }
        beside = [v for v, (weight, _) in edge.items() if weight < missing]
        tries: list[tuple[float, tuple[int, ...]]] = [(missing, ())]
        for count in range(1, len(beside) + 1):
            for chosen in combinations(beside, count):
                new = sum(1 << v for v in chosen)
                total, rest = best(left & ~new, new, depth + 1)
                ends = tuple(end for v in chosen for end in (edge[v][1], v))
                tries.append((total + depth * sum(edge[v][0] for v in chosen), (*ends, *rest)))
        return min(tries)

    everything = (1 << size) - 1
    _, root, ends = min(
        (cost, r, ends) for r in range(size) for cost, ends in [best(everything & ~(1 << r), 1 << r, 1)]
    )
    return _line((root, *ends))


def _add_one_edge(parameters: Parameters) -> str | None:
    """All pairs of vertices, by what the distances become."""
    size, new = parameters["N"], parameters["L"]
    if size > 16:
        return None
    vertices = range(1, size + 1)
    away = {(u, v): math.inf if u != v else 0 for u, v in product(vertices, repeat=2)}
    for u, v, weight in parameters["edges"]:
        away[u, v] = away[v, u] = weight
    for k, u, v in product(vertices, repeat=3):
        away[u, v] = min(away[u, v], away[u, k] + away[k, v])

    def diameter(ends: tuple[int, int]) -> float:
        x, y = ends
        return max(
            min(away[u, v], away[u, x] + new + away[y, v], away[u, y] + new + away[x, v])
            for u, v in combinations(vertices, 2)
        )

    return _line(min(combinations(vertices, 2), key=diameter))


def _minimalist_security(parameters: Parameters) -> str:
    """One value of a connected part decides all others of it, as +t + c or -t + c: every t is tried."""
    most, edges = parameters["P"], parameters["edges"]
    size = len(most)
    adjacent, total = _adjacent(size, edges), {(u, v): w for a, b, w in edges for u, v in ((a, b), (b, a))}
    best = min if parameters["minimized_or_maximized"] == "minimized" else max
    result: dict[int, int] = {}
    for start in range(size):
        if start in result:
            continue
        parent = _search(adjacent, start)
        tries = []
        for first in range(most[start] + 1):
            values = {start: first}
            for vertex, origin in parent.items():
                if vertex != start:
                    values[vertex] = total[origin, vertex] - values[origin]
            holds = all(values[u] + values[v] == w for u, v, w in edges if u in values)
            if holds and all(0 <= value <= most[vertex] for vertex, value in values.items()):
                tries.append(values)
        result |= best(tries, key=lambda values: sum(values.values()))
    return _line(result[vertex] for vertex in range(size))


def _graph_partition(parameters: Parameters) -> str | None:
    """Vertices one by one into a set that has some or into the next empty one; given up where it is no better."""
    size, sets = parameters["N"], parameters["K"]
    if size > 11:
        return None
    earlier: list[list[int]] = [[] for _ in range(size)]
    for u, v in parameters["edges"]:
        earlier[max(u, v)].append(min(u, v))
    best: tuple[float, list[int]] = (math.inf, [])

    def place(labels: list[int], used: int, crossing: int) -> None:
        nonlocal best
        vertex = len(labels)
        if crossing >= best[0] or size - vertex < sets - used:
            return
        if vertex == size:
            best = (crossing, labels)
            return
        for label in range(min(used + 1, sets)):
            cut = sum(labels[other] != label for other in earlier[vertex])
            place([*labels, label], max(used, label + 1), crossing + cut)

    place([], 0, 0)
    return _line(best[1])


def _path_count(parameters: Parameters) -> str:
    """Layers of two vertices double the number of paths; for each binary digit of K, one is led to a chain of the same
    length, on which the numbers add up."""
    count: int = parameters["K"]
    top = count.bit_length() - 1
    layers = [[1], *([3 * i + 3, 3 * i + 4] for i in range(top))]  # into both together, 2**i paths
    links = [3 * i + 5 for i in range(top)] + [2]  # links[i] is as far from vertex 1 as layer i + 1
    pairs = {(u, v) for lower, upper in pairwise(layers) for u in lower for v in upper}
    pairs |= set(pairwise(links))
    pairs |= {(u, links[i]) for i, layer in enumerate(layers) if count >> i & 1 for u in layer}
    size = 3 * top + 2
    rows = ("".join("Y" if {(u, v), (v, u)} & pairs else "N" for v in range(1, size + 1)) for u in range(1, size + 1))
    return "\n".join((str(size), *rows))


# Grids.


def _dominating_set_grid(parameters: Parameters) -> str | None:
    """A cheapest cover, cell by cell in the order of reading."""
    rows, columns, costs = parameters["N"], parameters["M"], parameters["F"]
    if min(rows, columns) > 6 or rows * columns > 42:
        return None
    cells = list(product(range(rows), range(columns)))
    covers = [sum(1 << i for i, other in enumerate(cells) if math.dist(cell, other) <= 1) for cell in cells]
    chosen = _cheapest_cover([costs[i][j] for i, j in cells], covers, (1 << len(cells)) - 1)
    return _lines((cells[number][0] + 1, cells[number][1] + 1) for number in chosen)


def _no_conflicting_bombs(parameters: Parameters) -> str:
    """Stretches of rows are matched with stretches of columns: a cell for a bomb is where two of them cross."""
    grid = [list(row) for row in parameters["grid"]]
    down, crossings, stretch = [0] * parameters["M"], [], -1
    numbers = iter(range(parameters["N"] * parameters["M"]))
    for i, row in enumerate(grid):
        for j, cell in enumerate(row):
            if j == 0 or row[j - 1] == "#":
                stretch += 1
            if i == 0 or grid[i - 1][j] == "#":
                down[j] = next(numbers)
            if cell == "*":
                crossings.append((stretch, down[j], i, j))
    options = [[column for row, column, _, _ in crossings if row == number] for number in range(stretch + 1)]
    owner = _matching(options)
    cell_of = {(row, column): (i, j) for row, column, i, j in crossings}
    for column, row in owner.items():
        i, j = cell_of[row, column]
        grid[i][j] = "B"
    return "\n".join(map("".join, grid))


def _independent_set_grid(parameters: Parameters) -> str | None:
    """Dynamic programming, row after row, over which cells of a row are taken."""
    columns = parameters["M"]
    if columns > 12:
        return None
    patterns = [mask for mask in range(1 << columns) if not mask & mask << 1]
    best = {0: (0, ())}
    for row in parameters["matrix"]:
        following = {}
        for mask in patterns:
            total, masks = max(item for above, item in best.items() if not above & mask)
            following[mask] = (total + sum(row[j] for j in range(columns) if mask >> j & 1), (*masks, mask))
        best = following
    _, masks = max(best.values())
    return "\n".join("".join(str(mask >> j & 1) for j in range(columns)) for mask in masks)


def _cube_assignment(parameters: Parameters) -> str:
    """A least cut: one edge of each cell's chain of values is cut, and edges without limit hold neighbours together."""
    import networkx as nx

    rows, columns, most = parameters["P"], parameters["Q"], parameters["R"]
    cells, limit = list(product(range(rows), range(columns))), parameters["D"]
    graph = nx.DiGraph()
    for i, j in cells:
        graph.add_edge("source", (i, j, 0))
        graph.add_edge((i, j, most), "sink")
        for k, cost in enumerate(parameters["costs"][i][j]):
            graph.add_edge((i, j, k), (i, j, k + 1), capacity=cost)
        for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= a < rows and 0 <= b < columns:
                graph.add_edges_from(((i, j, k), (a, b, k - limit)) for k in range(limit + 1, most + 1))
    _, (reached, _) = nx.minimum_cut(graph, "source", "sink")

    def value(i: int, j: int) -> int:
        return next(k for k in range(most) if (i, j, k + 1) not in reached)

    return _lines([value(i, j) for j in range(columns)] for i in range(rows))


SOLVERS: Mapping[str, Callable[[Parameters], str | None]] = MappingProxyType(
    {
        "Axis_KCenter": _axis_k_center,
        "BEZMinimalistSecurity": _minimalist_security,
        "LandAcquisition": _land_acquisition,
        "LongestPath": _longest_path,
        "Longest_MatchingSubsequence": _matching_subsequence,
        "MaxMultSplit": _max_mult_split,
        "MaxNoConflictingBombs": _no_conflicting_bombs,
        "MaxSegmentCoverageConstraint": _segment_coverage,
        "Max_TreeConstrainedPermutation_Weight": _tree_constrained_permutation,
        "MaxXorSet": _max_xor_set,
        "MaximumIndependentSetGrid": _independent_set_grid,
        "MaximumPointSegmentMatching": _point_segment_matching,
        "MinConversionToCycleCost": _conversion_to_cycle,
        "MinCostTreeCoverage": _tree_coverage,
        "MinCubeAssignment": _cube_assignment,
        "MinPathCover_DAG": _path_cover,
        "MinSumPreXor": _min_sum_prefix_xor,
        "MinimumIntervalCoverage": _interval_coverage,
        "MinimumRatioPath": _ratio_path,
        "MinimumSteinerTree": _steiner_tree,
        "MinimumTreeWeightedDominatingAncestor": _dominating_ancestor,
        "MinimumWeightedSpanningTree": _weighted_spanning_tree,
        "Minimum_CrossingEdges_GraphPartition": _graph_partition,
        "Minimum_DominatingSet_Grid": _dominating_set_grid,
        "PalembangBridges": _palembang_bridges,
        "ProtectingFlowers": _protecting_flowers,
        "ShortestPathCountConstruction": _path_count,
        "TreeAddOneEdgeDiameter": _add_one_edge,
        "TreeMaximumVisitedVertex": _maximum_visited,
    }
)
"""A task of the package, without its prefix, and what solves its problems."""
