"""Solvers for tasks of RLVE-Gym on numbers, strings and points, which have no reference answer.

1. Every answer earns 1, found from the problem without the best value that the package noted.
2. Where a solver rests on an exchange argument, as the package may too, no answer that there is at all is better.
3. A solver leaves its problem as it was; one that searches gives None for what is too large.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from itertools import combinations, permutations, product
from typing import Any

import networkx as nx
import pytest

from zaya.envs.pool import TaskPool
from zaya.envs.rlve import _from_json
from zaya.envs.rlve_solvers.sequences import SOLVERS

needs_gym = pytest.mark.skipif(importlib.util.find_spec("Gym") is None, reason="needs the extra envs")
SEEDS = range(6)


@pytest.fixture(scope="module")
def pool() -> Iterator[TaskPool]:
    with TaskPool(sample_timeout_s=120, score_timeout_s=60) as pool:
        yield pool


def check(pool: TaskPool, task: str, difficulties: Iterable[int], seeds: Iterable[int]) -> None:
    made = pool.sample([(f"rlve/{task}", seed, d) for d, seed in product(difficulties, seeds)])
    problems = [problem for problem in made if problem is not None]
    assert len(problems) > len(made) / 2
    answers = []
    for problem in problems:
        config = _from_json(problem.meta["config"]["parameter"])
        parameters = {key: value for key, value in config.items() if key not in ("gold_answer", "reference_result")}
        before = deepcopy(parameters)
        answers.append(SOLVERS[task](parameters))
        assert parameters == before
    assert None not in answers
    scores = pool.score([(p, f"\\boxed{{{answer}}}") for p, answer in zip(problems, answers, strict=True)])
    earned = [(p.difficulty, p.seed, score.reward) for p, score in zip(problems, scores, strict=True)]
    assert [item for item in earned if item[2] != 1] == []


@needs_gym
@pytest.mark.parametrize("task", SOLVERS)
def test_answers_earn_1(pool: TaskPool, task: str) -> None:
    # With six numbers the package takes about ten seconds to make one problem of CountdownClose.
    check(pool, task, range(3 if task == "CountdownClose" else 4), SEEDS)


@needs_gym
@pytest.mark.slow
def test_closest_with_six_numbers(pool: TaskPool) -> None:
    check(pool, "CountdownClose", [3], range(3))


def best_of(task: str, parameters: dict[str, Any], answers: Iterable[Sequence[int]], worth: Any) -> tuple[float, float]:
    """What the solver's answer is worth and what the best of all is; `worth` is None for what is no answer."""
    text = SOLVERS[task](parameters)
    assert text is not None
    mine = worth([int(word) for word in text.split()])
    return mine, max(value for answer in answers if (value := worth(answer)) is not None)


@pytest.mark.parametrize("seed", range(25))
def test_no_order_of_acting_is_better(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(3, 6)
    target = [rng.randrange(n) for _ in range(n)]
    for wish in ("minimize", "maximize"):

        def victims(order: Sequence[int], wish: str = wish) -> int:
            dead: set[int] = set()
            for i in order:
                if i not in dead:
                    dead.add(target[i])
            return len(dead) if wish == "maximize" else -len(dead)

        mine, best = best_of("MafMafia", {"TO": target, "minimize_or_maximize": wish}, permutations(range(n)), victims)
        assert mine == best


@pytest.mark.parametrize("seed", range(25))
def test_no_permutation_has_a_larger_sum(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(3, 6)

    def rising(order: Sequence[int]) -> list[int]:
        """How long a rising subsequence can be that ends at each place."""
        lengths: list[int] = []
        for i, value in enumerate(order):
            lengths.append(1 + max((lengths[j] for j in range(i) if order[j] < value), default=0))
        return lengths

    wanted = rising(rng.sample(range(n), n))

    def total(order: Sequence[int]) -> int | None:
        return sum(rising(order[::-1])) if rising(order) == wanted else None

    mine, best = best_of("MaxSumLDS", {"N": n, "A": [0, *wanted]}, permutations(range(1, n + 1)), total)
    assert mine == best


@pytest.mark.parametrize("seed", range(10))
def test_no_array_is_worth_more(seed: int) -> None:
    rng = random.Random(seed)
    n, k = rng.randint(4, 6), rng.randint(2, 4)
    cost = [rng.randint(1, k) for _ in range(k)]

    def worth(array: Sequence[int]) -> int:
        gaps = 0
        for i, x in enumerate(array):
            before = [j for j in range(i) if array[j] == x]
            gaps += cost[x] * (i - before[-1]) if before else 0
        return gaps

    mine, best = best_of("StuntFlying", {"N": n, "K": k, "C": cost}, product(range(k), repeat=n), worth)
    assert mine == best


@pytest.mark.parametrize("seed", range(15))
def test_no_centres_are_nearer(seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randint(3, 8)
    edges = [(rng.randrange(v), v) for v in range(1, n)]
    keys = rng.sample(range(n), rng.randint(2, n))
    m = rng.randint(1, len(keys) - 1)
    distance = dict(nx.all_pairs_shortest_path_length(nx.Graph(edges)))

    def nearness(centres: Sequence[int]) -> int:
        assert len(set(centres)) == m
        return -max(min(distance[key][centre] for centre in centres) for key in keys)

    parameters = {"N": n, "edges": edges, "key_vertices": keys, "M": m}
    mine, best = best_of("DynDynamite", parameters, combinations(range(n), m), nearness)
    assert mine == best


@pytest.mark.parametrize("seed", range(15))
def test_no_intervals_raise_more(seed: int) -> None:
    rng = random.Random(seed)
    n, k = rng.randint(3, 5), rng.randint(1, 2)
    heights = [rng.randint(1, 2 * n) for _ in range(n)]

    def longest(flat: Sequence[int]) -> int:
        raised = heights[:]
        for start, end in zip(flat[::2], flat[1::2], strict=True):
            for i in range(start, end + 1):
                raised[i] += 1
        assert len(flat) <= 2 * k
        return max(
            len(some)
            for size in range(n + 1)
            for some in combinations(range(n), size)
            if all(raised[a] <= raised[b] for a, b in combinations(some, 2))
        )

    intervals = list(combinations(range(n), 2)) + [(i, i) for i in range(n)]
    every = ([i for interval in some for i in interval] for some in product(intervals, repeat=k))
    mine, best = best_of("Cornfield", {"N": n, "H": heights, "K": k}, every, longest)
    assert mine == best


@pytest.mark.parametrize("seed", range(10))
def test_no_swaps_are_cheaper(seed: int) -> None:
    rng = random.Random(seed)
    n = 5
    if seed % 2:  # four dear items in a cycle, which the cheap one that stands right should help with
        cost = [1, *(rng.randint(8, 12) for _ in range(4))]
        start, end = [0, 1, 2, 3, 4], [0, 2, 3, 4, 1]
    else:
        cost = [rng.randint(1, 9) for _ in range(n)]
        start, end = rng.sample(range(n), n), rng.sample(range(n), n)
    graph = nx.Graph()
    for order in permutations(range(n)):
        for i, j in combinations(range(n), 2):
            other = list(order)
            other[i], other[j] = other[j], other[i]
            graph.add_edge(order, tuple(other), weight=cost[order[i]] + cost[order[j]])
    text = SOLVERS["SLOElephants"]({"N": n, "A": start, "B": end, "C": cost})
    assert text is not None
    items, paid = start[:], 0
    for line in text.splitlines():
        a, b = map(int, line.split())
        i, j = items.index(a), items.index(b)
        items[i], items[j] = items[j], items[i]
        paid += cost[a] + cost[b]
    assert items == end
    assert paid == nx.dijkstra_path_length(graph, tuple(start), tuple(end))


@pytest.mark.parametrize("seed", range(15))
def test_no_winning_move_removes_less(seed: int) -> None:
    """By the rules, not by linear algebra: the opponent must find no heaps to leave that cancel out."""
    rng = random.Random(seed)
    n = rng.randint(3, 6)
    heaps = [rng.randint(1, 8) for _ in range(n)]

    def removed(taken: Sequence[int]) -> int | None:
        stay = [heap for i, heap in enumerate(heaps, 1) if i not in taken]
        for size in range(1, len(stay) + 1):
            for left in combinations(stay, size):
                xor = 0
                for heap in left:
                    xor ^= heap
                if xor == 0:
                    return None
        return -sum(heaps[i - 1] for i in taken) if stay else None

    every = (taken for size in range(n) for taken in combinations(range(1, n + 1), size))
    mine, best = best_of("NewNimGame", {"N": n, "A": heaps}, every, removed)
    assert mine == best


@pytest.mark.parametrize("seed", range(15))
def test_no_intervals_lift_the_minimum_higher(seed: int) -> None:
    rng = random.Random(seed)
    n, m = rng.randint(3, 6), rng.randint(3, 6)
    k, added = rng.randint(2, m - 1), rng.randint(1, 9)
    array = [rng.randint(1, 6 * k) for _ in range(n)]
    intervals = [tuple(sorted((rng.randint(1, n), rng.randint(1, n)))) for _ in range(m)]

    def lowest(chosen: Sequence[int]) -> int:
        assert len(set(chosen)) == k
        cover = [sum(intervals[c - 1][0] <= i <= intervals[c - 1][1] for c in chosen) for i in range(1, n + 1)]
        return min(value + added * times for value, times in zip(array, cover, strict=True))

    parameters = {"N": n, "M": m, "K": k, "A": added, "ARRAY": array, "intervals": intervals}
    every = combinations(range(1, m + 1), k)
    mine, best = best_of("MaxMinimum_AfterIntervalAddition", parameters, every, lowest)
    assert mine == best


@pytest.mark.parametrize(
    ("task", "parameters"),
    [
        ("CountdownClose", {"operands": [1] * 7, "target": 3}),
        ("CountdownEqual", {"operands": [1] * 7, "target": 3}),
        ("MinPairSumMultiplicationPermutation", {"N": 9, "A": [[1] * 9] * 9, "B": [[1] * 9] * 9}),
        ("GasFireExtinguishers", {"N": 9, "edges": [(0, i) for i in range(1, 9)], "K": 1, "S": 2}),
        ("Disinfection", {"A": 8, "B": 8, "C": 8, "one_coordinates": [(0, 0, 0)]}),
        ("MinimumSumDifferenceSubmatrix", {"N": 20, "M": 20, "R": 10, "C": 10, "matrix": [[1] * 20] * 20}),
    ],
)
def test_too_large(task: str, parameters: dict[str, Any]) -> None:
    assert SOLVERS[task](parameters) is None
