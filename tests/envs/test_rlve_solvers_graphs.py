"""Solvers of tasks of RLVE-Gym that ship no answer: against the scorers of the package, and without it.

1. For every task and for difficulties 0 to 3, what the solver gives earns 1, though it never sees the best value that
   stands beside the parameters.
2. A solver that does not look at everything is as good as one that does: on small problems made here no answer at all
   is better, by the statement of the task as it is written down here.
3. A graph made for K has K shortest paths, and no more vertices than asked for, for every K.
4. What a search would take too long for is given back as None, at once.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import combinations, pairwise, permutations, product
from typing import Any

import networkx as nx
import pytest

from zaya.envs.base import Status
from zaya.envs.pool import TaskPool
from zaya.envs.rlve import _from_json
from zaya.envs.rlve_solvers.graphs import SOLVERS

needs_gym = pytest.mark.skipif(importlib.util.find_spec("Gym") is None, reason="needs the extra envs")

SEEDS = range(6)
DIFFICULTIES = range(4)


@pytest.fixture(scope="module")
def pool() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=60, score_timeout_s=60) as pool:
        yield pool


@needs_gym
@pytest.mark.parametrize("task", SOLVERS)
def test_earns_all(pool: TaskPool, task: str) -> None:
    items = [(f"rlve/{task}", seed, difficulty) for difficulty in DIFFICULTIES for seed in SEEDS]
    problems = [problem for problem in pool.sample(items) if problem is not None]
    assert len(problems) >= 0.75 * len(items)
    pairs = []
    for problem in problems:
        parameters = _from_json(problem.meta["config"]["parameter"])
        parameters.pop("gold_answer", None)
        answer = SOLVERS[task](parameters)
        assert answer is not None
        pairs.append((problem, f"\\boxed{{{answer}}}"))
    scores = pool.score(pairs)
    assert [(score.reward, score.status) for score in scores] == [(1, Status.OK)] * len(problems)


Answer = Any
"""As a task sees it: a list of integers, a list of lists, a list of strings."""
Case = tuple[dict[str, Any], Iterable[Answer], Callable[[Answer], Any]]
"""Parameters, all answers there are, and what one is worth: None where it breaks a rule."""


def subsets(items: Iterable[Any]) -> Iterator[list[Any]]:
    items = list(items)
    for count in range(len(items) + 1):
        yield from map(list, combinations(items, count))


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    first, *others = items
    for rest in partitions(others):
        yield [[first], *rest]
        for i, group in enumerate(rest):
            yield [*rest[:i], [first, *group], *rest[i + 1 :]]


def tree(rng: random.Random, size: int) -> list[tuple[int, int]]:
    return [(rng.randrange(vertex), vertex) for vertex in range(1, size)]


def k_center(rng: random.Random) -> Case:
    positions = sorted(rng.sample(range(30), 7))
    count = rng.randint(1, 6)

    def value(chosen: list[int]) -> int:
        return sum(min(abs(x - positions[i]) for i in chosen) for x in positions)

    return {"N": 7, "K": count, "X": positions}, map(list, combinations(range(7), count)), value


def ordered(rng: random.Random) -> Case:
    weights, before = [rng.randint(1, 5) for _ in range(5)], [rng.randint(0, i) for i in range(5)]

    def value(order: list[int]) -> int | None:
        if any(first and order.index(first) > order.index(i) for i, first in enumerate(before, start=1)):
            return None
        return sum(weights[element - 1] * i for i, element in enumerate(order, start=1))

    return {"N": 5, "W": weights, "A": before}, map(list, permutations(range(1, 6))), value


def point_matching(rng: random.Random) -> Case:
    points = [rng.randint(0, 5) for _ in range(4)]
    segments = [tuple(sorted((rng.randint(0, 5), rng.randint(0, 5)))) for _ in range(3)]

    def value(pairs: list[list[int]]) -> int | None:
        is_valid = all(segments[n][0] <= points[c] <= segments[n][1] for c, n in pairs)
        is_valid &= len({c for c, _ in pairs}) == len({n for _, n in pairs}) == len(pairs)
        return len(pairs) if is_valid else None

    return {"C": 4, "N": 3, "points": points, "segments": segments}, subsets(product(range(4), range(3))), value


def bridges(rng: random.Random) -> Case:
    starts, ends = [rng.randint(0, 9) for _ in range(5)], [rng.randint(0, 9) for _ in range(5)]
    count = rng.randint(1, 2)

    def value(places: list[int]) -> int:
        return sum(min(abs(p - s) + abs(p - t) for p in places) for s, t in zip(starts, ends, strict=True))

    return {"N": 5, "K": count, "S": starts, "T": ends}, map(list, product(range(10), repeat=count)), value


def matching_subsequence(rng: random.Random) -> Case:
    values = [rng.randint(1, 8) for _ in range(7)] + [1]

    def value(chosen: list[int]) -> int:
        return sum(values[i] == j for j, i in enumerate(chosen, start=1))

    return {"N": 8, "A": values}, subsets(range(8)), value


def segment_coverage(rng: random.Random) -> Case:
    segments = [tuple(sorted((rng.randint(0, 12), rng.randint(0, 12)))) for _ in range(6)]
    constraints = [(p, rng.randint(1, 2)) for p in rng.sample(range(13), 4)]

    def value(chosen: list[int]) -> int | None:
        crowded = any(sum(segments[i][0] <= p <= segments[i][1] for i in chosen) > x for p, x in constraints)
        return None if crowded else len(chosen)

    return {"N": 6, "segments": segments, "constraints": constraints}, subsets(range(6)), value


def interval_coverage(rng: random.Random) -> Case:
    spans = [sorted((rng.randint(1, 4), rng.randint(1, 4))) for _ in range(5)]
    intervals = [(left, right, rng.randint(1, 2 + right - left)) for left, right in spans]
    needs = [rng.randint(0, 3) if any(le <= i <= ri for le, ri in spans) else 0 for i in range(1, 5)]

    def value(times: list[int]) -> int | None:
        for i, need in enumerate(needs, start=1):
            if sum(t for t, (left, right) in zip(times, spans, strict=True) if left <= i <= right) < need:
                return None
        return sum(t * cost for t, (_, _, cost) in zip(times, intervals, strict=True))

    parameters = {"N": 4, "M": 5, "intervals": intervals, "NEEDS": needs}
    return parameters, map(list, product(range(4), repeat=5)), value


def flowers(rng: random.Random) -> Case:
    times, damage = [rng.randint(1, 6) for _ in range(6)], [rng.randint(1, 6) for _ in range(6)]

    def value(order: list[int]) -> int:
        return sum(sum(times[j - 1] for j in order[:i]) * damage[flower - 1] for i, flower in enumerate(order))

    return {"N": 6, "T": times, "D": damage}, map(list, permutations(range(1, 7))), value


def land(rng: random.Random) -> Case:
    widths, lengths = [rng.randint(1, 12) for _ in range(6)], [rng.randint(1, 12) for _ in range(6)]

    def value(groups: list[list[int]]) -> int:
        assert sorted(i for group in groups for i in group) == list(range(1, 7))
        return sum(max(widths[i - 1] for i in group) * max(lengths[i - 1] for i in group) for group in groups)

    return {"N": 6, "W": widths, "L": lengths}, partitions(list(range(1, 7))), value


def mult_split(rng: random.Random) -> Case:
    digits, cuts = "".join(rng.choices("123456789", k=7)), rng.randint(1, 6)
    splits = [[0, *inner, 7] for inner in combinations(range(1, 7), cuts)]

    def value(parts: list[int]) -> int | None:
        result = 1
        for part in parts:
            result *= part
        return result if "".join(map(str, parts)) == digits and len(parts) == cuts + 1 else None

    answers = ([int(digits[a:b]) for a, b in pairwise(split)] for split in splits)
    return {"N": 7, "K": cuts, "string": digits}, answers, value


def xor_set(rng: random.Random) -> Case:
    values = [rng.randint(1, 40) for _ in range(6)]

    def value(chosen: list[int]) -> int:
        result = 0
        for i in chosen:
            result ^= values[i]
        return result

    return {"N": 6, "A": values}, subsets(range(6)), value


def prefix_xor(rng: random.Random) -> Case:
    entries = [rng.choice([-1, 0, 1, 2, 3, 3]) for _ in range(6)]

    def value(filled: list[int]) -> int | None:
        if any(old not in (-1, new) for old, new in zip(entries, filled, strict=True)):
            return None
        total = running = 0
        for entry in filled:
            running ^= entry
            total += running
        return total

    return {"N": 6, "P": entries}, map(list, product(*(range(4) if e == -1 else [e] for e in entries))), value


def ratio_path(rng: random.Random) -> Case:
    pairs = {*pairwise((0, *rng.sample(range(1, 5), 4), 5)), *rng.sample(list(combinations(range(5), 2)), 5)}
    weights = {(min(u, v), max(u, v)): rng.randint(1, 20) for u, v in sorted(pairs)}

    def value(path: list[int]) -> Fraction | None:
        steps = [(min(u, v), max(u, v)) for u, v in pairwise(path)]
        if not set(steps) <= set(weights) or (path[0], path[-1]) != (0, 5):
            return None
        used = [weights[step] for step in steps]
        return Fraction(max(used), min(used))

    paths = ([0, *inner, 5] for count in range(5) for inner in permutations(range(1, 5), count))
    return {"N": 6, "edges": [(u, v, w) for (u, v), w in weights.items()]}, paths, value


def longest_path(rng: random.Random) -> Case:
    weights = {edge: rng.randint(1, 5) for edge in rng.sample(list(permutations(range(5), 2)), 9)}

    def value(path: list[int]) -> int | None:
        steps = list(pairwise(path))
        is_path = set(steps) <= set(weights) and len(set(path)) == len(path)
        return sum(weights[step] for step in steps) if is_path else None

    paths = (list(path) for count in range(1, 6) for path in permutations(range(5), count))
    return {"N": 5, "edges": [(s, t, w) for (s, t), w in weights.items()]}, paths, value


def visited(rng: random.Random) -> Case:
    edges, steps = tree(rng, 6), rng.randint(2, 6)

    def value(walk: list[int]) -> int | None:
        is_walk = all((min(step), max(step)) in edges for step in pairwise(walk))
        return len(set(walk)) if is_walk and walk[0] == 0 and len(walk) == steps + 1 else None

    return {"N": 6, "M": steps, "edges": edges}, ([0, *rest] for rest in product(range(6), repeat=steps)), value


def to_cycle(rng: random.Random) -> Case:
    before = [rng.choice([j for j in range(6) if j != i]) for i in range(6)]
    if rng.random() < 0.3:
        before = rng.sample([5, 0, 1, 2, 3, 4], 6)  # cycles only
    costs = [rng.randint(1, 6) for _ in range(6)]

    def value(after: list[int]) -> int | None:
        at, seen = 0, set()
        while at not in seen:
            seen.add(at)
            at = after[at]
        if at != 0 or len(seen) != 6:
            return None
        return sum(cost for old, new, cost in zip(before, after, costs, strict=True) if old != new)

    return {"N": 6, "A": before, "C": costs}, map(list, permutations(range(6))), value


def tree_coverage(rng: random.Random) -> Case:
    edges, reach = tree(rng, 7), rng.randint(1, 2)
    costs, needed = [rng.randint(1, 7) for _ in range(7)], rng.sample(range(7), rng.randint(1, 7))
    away = dict(nx.all_pairs_shortest_path_length(nx.Graph(edges)))

    def value(chosen: list[int]) -> int | None:
        covers = all(any(away[u][v] <= reach for u in chosen) for v in needed)
        return sum(costs[u] for u in chosen) if covers else None

    parameters = {"N": 7, "edges": edges, "covered_vertices": needed, "D": reach, "W": costs}
    return parameters, subsets(range(7)), value


def path_cover(rng: random.Random) -> Case:
    weights = {(s, t): rng.randint(1, 12) for t in range(2, 6) for s in rng.sample(range(1, t), rng.randint(1, t - 1))}
    paths = [[1]]
    for path in paths:  # grows: every path from 1
        paths += [[*path, t] for s, t in weights if s == path[-1]]

    def value(chosen: list[list[int]]) -> int | None:
        steps = [step for path in chosen for step in pairwise(path)]
        return sum(weights[step] for step in steps) if set(steps) == set(weights) else None

    return {"N": 5, "edges": [(s, t, w) for (s, t), w in weights.items()]}, subsets(paths[1:]), value


def steiner_tree(rng: random.Random) -> Case:
    weights = {edge: rng.randint(1, 6) for edge in {*tree(rng, 6), *rng.sample(list(combinations(range(6), 2)), 4)}}
    given = rng.sample(range(6), 3)

    def value(ends: list[int]) -> int | None:
        edges = [(min(u, v), max(u, v)) for u, v in zip(ends[::2], ends[1::2], strict=True)]
        graph = nx.Graph(edges)
        if not set(edges) <= set(weights) or not set(given) <= set(graph) or not nx.is_connected(graph):
            return None
        return sum(weights[edge] for edge in edges)

    parameters = {"N": 6, "edges": [(u, v, w) for (u, v), w in weights.items()], "K": 3, "to_be_connected": given}
    return parameters, ([end for edge in edges for end in edge] for edges in subsets(sorted(weights)) if edges), value


def weighted_spanning_tree(rng: random.Random) -> Case:
    weights = {edge: rng.randint(0, 5) for edge in {*tree(rng, 5), *rng.sample(list(combinations(range(5), 2)), 4)}}

    def value(answer: list[int]) -> int | None:
        root, *ends = answer
        graph = nx.Graph(list(zip(ends[::2], ends[1::2], strict=True)))
        edges = {(min(edge), max(edge)) for edge in graph.edges}
        if not edges <= set(weights) or len(graph) != 5 or not nx.is_tree(graph):
            return None
        depth = nx.single_source_shortest_path_length(graph, root)
        return sum(weights[u, v] * max(depth[u], depth[v]) for u, v in edges)

    answers = ([root, *sum(edges, ())] for root in range(5) for edges in combinations(sorted(weights), 4))
    return {"N": 5, "edges": [(u, v, w) for (u, v), w in weights.items()]}, answers, value


def add_one_edge(rng: random.Random) -> Case:
    edges, new = [(u + 1, v + 1, rng.randint(0, 6)) for u, v in tree(rng, 6)], rng.randint(0, 6)

    def value(ends: list[int]) -> float:
        graph = nx.MultiGraph()
        graph.add_weighted_edges_from([*edges, (*ends, new)])
        return max(max(lengths.values()) for _, lengths in nx.all_pairs_dijkstra_path_length(graph))

    return {"N": 6, "edges": edges, "L": new}, map(list, combinations(range(1, 7), 2)), value


def security(rng: random.Random) -> Case:
    hidden = [rng.randint(0, 4) for _ in range(5)]
    pairs = rng.sample(list(combinations(range(5), 2)), rng.randint(2, 6))
    edges, most = [(u, v, hidden[u] + hidden[v]) for u, v in pairs], [x + rng.randint(0, 2) for x in hidden]
    wanted = rng.choice(["minimized", "maximized"])

    def value(values: list[int]) -> int | None:
        holds = all(values[u] + values[v] == w for u, v, w in edges)
        holds &= all(0 <= x <= limit for x, limit in zip(values, most, strict=True))
        return (sum(values) if wanted == "minimized" else -sum(values)) if holds else None

    parameters = {"N": 5, "P": most, "edges": edges, "minimized_or_maximized": wanted}
    return parameters, map(list, product(*(range(limit + 1) for limit in most))), value


def dominating_ancestor(rng: random.Random) -> Case:
    parents = [None, *((rng.randrange(v), rng.randint(1, 9)) for v in range(1, 7))]
    costs, count = [0] + [rng.randint(0, 9) for _ in range(6)], rng.randint(1, 5)

    def value(chosen: list[int]) -> int | None:
        away = [0]
        for vertex in range(1, 7):
            parent, weight = parents[vertex]
            away.append(0 if vertex in chosen else away[parent] + weight)
        is_valid = len(set(chosen)) == len(chosen) == count
        return sum(c * d for c, d in zip(costs, away, strict=True)) if is_valid else None

    return {"N": 6, "parents": parents, "C": costs, "K": count}, subsets(range(1, 7)), value


def graph_partition(rng: random.Random) -> Case:
    edges, count = rng.sample(list(combinations(range(6), 2)), rng.randint(1, 14)), rng.randint(2, 5)

    def value(labels: list[int]) -> int | None:
        return sum(labels[u] != labels[v] for u, v in edges) if set(labels) == set(range(count)) else None

    return {"N": 6, "K": count, "edges": edges}, map(list, product(range(count), repeat=6)), value


def dominating_grid(rng: random.Random) -> Case:
    cells = list(product((1, 2, 3), repeat=2))
    costs = [[rng.randint(1, 9) for _ in range(3)] for _ in range(3)]

    def value(chosen: list[list[int]]) -> int | None:
        near = all(any(abs(i - a) + abs(j - b) <= 1 for a, b in chosen) for i, j in cells)
        return sum(costs[i - 1][j - 1] for i, j in chosen) if near else None

    return {"N": 3, "M": 3, "F": costs}, subsets(cells), value


def bombs(rng: random.Random) -> Case:
    grid = [rng.choices("#x*", weights=(3, 1, 4), k=4) for _ in range(4)]
    free = [cell for cell in product(range(4), repeat=2) if grid[cell[0]][cell[1]] == "*"]

    def drawn(chosen: list[tuple[int, int]]) -> list[str]:
        return ["".join("B" if (i, j) in chosen else grid[i][j] for j in range(4)) for i in range(4)]

    def value(rows: list[str]) -> int | None:
        if [row.replace("B", "*") for row in rows] != ["".join(row) for row in grid]:
            return None
        lines = [*rows, *("".join(column) for column in zip(*rows, strict=True))]
        clash = any(stretch.count("B") > 1 for line in lines for stretch in line.split("#"))
        return None if clash else "".join(rows).count("B")

    return {"N": 4, "M": 4, "grid": grid}, map(drawn, subsets(free)), value


def independent_grid(rng: random.Random) -> Case:
    values = [[rng.randint(1, 5) for _ in range(4)] for _ in range(3)]

    def value(rows: list[str]) -> int | None:
        lines = [*rows, *("".join(column) for column in zip(*rows, strict=True))]
        if any("11" in line for line in lines):
            return None
        return sum(
            v for row, drawn in zip(values, rows, strict=True) for v, c in zip(row, drawn, strict=True) if c == "1"
        )

    answers = ([bits[0:4], bits[4:8], bits[8:12]] for bits in (f"{i:012b}" for i in range(1 << 12)))
    return {"N": 3, "M": 4, "matrix": values}, answers, value


def cube(rng: random.Random) -> Case:
    costs = [[[rng.randint(1, 9) for _ in range(3)] for _ in range(3)] for _ in range(2)]
    limit = rng.randint(0, 2)

    def value(rows: list[list[int]]) -> int | None:
        lines = [*rows, *zip(*rows, strict=True)]
        if any(abs(a - b) > limit for line in lines for a, b in pairwise(line)):
            return None
        return sum(costs[i][j][k] for i, row in enumerate(rows) for j, k in enumerate(row))

    answers = ([list(values[:3]), list(values[3:])] for values in product(range(3), repeat=6))
    return {"P": 2, "Q": 3, "R": 3, "D": limit, "costs": costs}, answers, value


def row(text: str) -> list[int]:
    return list(map(int, text.split()))


def rows(text: str) -> list[list[int]]:
    return list(map(row, text.splitlines()))


ORACLES: dict[str, tuple[Callable[[random.Random], Case], Callable[[str], Answer], Callable[..., Any]]] = {
    "Axis_KCenter": (k_center, row, min),
    "BEZMinimalistSecurity": (security, row, min),
    "LandAcquisition": (land, rows, min),
    "LongestPath": (longest_path, row, max),
    "Longest_MatchingSubsequence": (matching_subsequence, row, max),
    "MaxMultSplit": (mult_split, row, max),
    "MaxNoConflictingBombs": (bombs, str.splitlines, max),
    "MaxSegmentCoverageConstraint": (segment_coverage, row, max),
    "Max_TreeConstrainedPermutation_Weight": (ordered, row, max),
    "MaxXorSet": (xor_set, row, max),
    "MaximumIndependentSetGrid": (independent_grid, str.splitlines, max),
    "MaximumPointSegmentMatching": (point_matching, rows, max),
    "MinConversionToCycleCost": (to_cycle, row, min),
    "MinCostTreeCoverage": (tree_coverage, row, min),
    "MinCubeAssignment": (cube, rows, min),
    "MinPathCover_DAG": (path_cover, rows, min),
    "MinSumPreXor": (prefix_xor, row, min),
    "MinimumIntervalCoverage": (interval_coverage, row, min),
    "MinimumRatioPath": (ratio_path, row, min),
    "MinimumSteinerTree": (steiner_tree, row, min),
    "MinimumTreeWeightedDominatingAncestor": (dominating_ancestor, row, min),
    "MinimumWeightedSpanningTree": (weighted_spanning_tree, row, min),
    "Minimum_CrossingEdges_GraphPartition": (graph_partition, row, min),
    "Minimum_DominatingSet_Grid": (dominating_grid, rows, min),
    "PalembangBridges": (bridges, row, min),
    "ProtectingFlowers": (flowers, row, min),
    "TreeAddOneEdgeDiameter": (add_one_edge, row, min),
    "TreeMaximumVisitedVertex": (visited, row, max),
}
"""For each task a maker of small problems, how an answer reads, and whether little or much is wanted."""


@pytest.mark.parametrize("task", ORACLES)
def test_nothing_is_better(task: str) -> None:
    make, read, best = ORACLES[task]
    for seed in range(10):
        parameters, answers, value = make(random.Random(seed))
        text = SOLVERS[task](parameters)
        assert text is not None
        assert value(read(text)) == best(worth for answer in answers if (worth := value(answer)) is not None)


def test_every_task_is_searched_through() -> None:
    assert set(SOLVERS) == {*ORACLES, "ShortestPathCountConstruction"}


def test_path_counts() -> None:
    for count in range(3, 300):
        text = SOLVERS["ShortestPathCountConstruction"]({"K": count})
        assert text is not None
        size, *lines = text.splitlines()
        assert len(lines) == int(size) < count + 2 or count < 12
        matrix = [[c == "Y" for c in line] for line in lines]
        assert matrix == [list(column) for column in zip(*matrix, strict=True)]
        assert not any(matrix[i][i] for i in range(int(size)))
        graph = nx.Graph([(i, j) for i, j in product(range(int(size)), repeat=2) if matrix[i][j]])
        assert sum(1 for _ in nx.all_shortest_paths(graph, 0, 1)) == count


def test_too_large() -> None:
    assert SOLVERS["LongestPath"]({"N": 60, "edges": []}) is None
    assert SOLVERS["MaximumIndependentSetGrid"]({"N": 40, "M": 40, "matrix": []}) is None
    assert SOLVERS["MinCostTreeCoverage"]({"N": 60, "edges": []}) is None
    assert SOLVERS["MaxSegmentCoverageConstraint"]({"segments": [(0, 1)] * 60, "constraints": []}) is None
