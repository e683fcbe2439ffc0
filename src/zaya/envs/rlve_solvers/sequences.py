"""Solvers for tasks of RLVE-Gym on numbers, strings and points that come without a reference answer.

Oracles for the audit: each reads the statement of a problem from its parameters and gives an answer that is right, by a
textbook algorithm, or None for a problem too large for it. None of them looks at the best value that the package
noted, or asks its scorer; where the two agree, two programs do that know nothing of each other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate, chain, combinations, combinations_with_replacement, pairwise, permutations, product
from types import MappingProxyType
from typing import Any

import networkx as nx

Parameters = Mapping[str, Any]
Found = tuple[float, tuple[int, ...]]
"""A value and the choices that lead to it. Where two values are the same, either will do."""

# Beyond these a search takes more than about half a second, and its solver gives None.
MOST_OPERANDS = 6
MOST_PERMUTED = 8
MOST_EXTINGUISHED = 8
"""Vertices of the tree."""
MOST_SLABS = 7
"""Cells along the shortest axis."""
MOST_ROWS_CHOSEN = 2000
"""Ways to choose the rows."""


def _line(items: Iterable[object]) -> str:
    return " ".join(map(str, items))


# Shared: chains, batches, matchings


def _chains(length: int, follows: Callable[[int, int], bool], weight: Callable[[int], int]) -> list[Found]:
    """For each index the heaviest chain that ends there; `follows(j, i)` says whether i may come right after j."""
    best: list[Found] = []
    for i in range(length):
        before = max((best[j] for j in range(i) if follows(j, i)), default=(0, ()))
        best.append((before[0] + weight(i), (*before[1], i)))
    return best


def _batches(length: int, cost: Callable[[int, int], float]) -> Found:
    """The cheapest division of a sequence into batches, as their ends; a batch [start, end) has `cost(start, end)`."""
    best: list[Found] = [(0, ())]
    for end in range(1, length + 1):
        best.append(min((best[start][0] + cost(start, end), (*best[start][1], end)) for start in range(end)))
    return best[length]


def _bipartite(edges: Iterable[tuple[int, int]]) -> tuple[Any, set[tuple[str, int]]]:
    edges = list(edges)
    return nx.Graph((("left", u), ("right", v)) for u, v in edges), {("left", u) for u, _ in edges}


def _matching(edges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """A maximum matching, from left to right."""
    graph, left = _bipartite(edges)
    found = nx.bipartite.hopcroft_karp_matching(graph, left)
    return {u: found["left", u][1] for side, u in found if side == "left"}


def _cover(edges: Iterable[tuple[int, int]]) -> set[tuple[str, int]]:
    """A minimum vertex cover."""
    graph, left = _bipartite(edges)
    return nx.bipartite.to_vertex_cover(graph, nx.bipartite.hopcroft_karp_matching(graph, left), left)


# Grids and matrices


def minimum_sum_difference_submatrix(p: Parameters) -> str | None:
    """Every choice of rows; for each, a shortest path through the columns."""
    matrix, num_rows, num_columns = p["matrix"], p["R"], p["C"]
    if math.comb(p["N"], num_rows) > MOST_ROWS_CHOSEN:
        return None

    def columns(rows: Sequence[int]) -> Found:
        within = [sum(abs(matrix[a][c] - matrix[b][c]) for a, b in pairwise(rows)) for c in range(p["M"])]
        best: dict[int, Found] = {c: (within[c], (c,)) for c in range(p["M"])}
        for _ in range(num_columns - 1):
            best = {
                c: min(
                    (best[b][0] + within[c] + sum(abs(matrix[r][b] - matrix[r][c]) for r in rows), (*best[b][1], c))
                    for b in best
                    if b < c
                )
                for c in range(min(best) + 1, p["M"])
            }
        return min(best.values())

    (_, chosen), rows = min((columns(rows), rows) for rows in combinations(range(p["N"]), num_rows))
    return f"{_line(rows)}\n{_line(chosen)}"


def minimum_unconflicted_grid_kmax(p: Parameters) -> str:
    """The lowest limit under which a matching puts enough rows; the others take what is left."""
    grid, num_rows, num_columns = p["A"], p["N"], p["M"]

    def within(limit: int) -> dict[int, int]:
        return _matching((i, j) for i in range(num_rows) for j in range(num_columns) if grid[i][j] <= limit)

    limits = sorted(set(chain.from_iterable(grid)))
    column = next(found for limit in limits if len(found := within(limit)) > num_rows - p["K"])
    free = (j for j in range(num_columns) if j not in column.values())
    return _line(column[i] + 1 if i in column else next(free) + 1 for i in range(num_rows))


def circulating_grid(p: Parameters) -> str:
    """Every cell is entered once: a perfect matching of cells with neighbours that keeps most arrows."""
    grid, height, width = p["grid"], p["R"], p["C"]
    moves = {"L": (0, -1), "R": (0, 1), "U": (-1, 0), "D": (1, 0)}
    graph, arrows = nx.Graph(), {}
    for i, j in product(range(height), range(width)):
        # The arrow that stands there comes last: in a grid two cells wide both L and R lead to the same cell.
        for arrow in sorted(moves, key=lambda arrow: arrow == grid[i][j]):
            to = (i + moves[arrow][0]) % height, (j + moves[arrow][1]) % width
            graph.add_edge(("from", i, j), ("to", *to), weight=int(arrow == grid[i][j]))
            arrows[(i, j), to] = arrow
    rows = [[""] * width for _ in range(height)]
    for edge in nx.max_weight_matching(graph, maxcardinality=True):
        (_, i, j), (_, *to) = sorted(edge)
        rows[i][j] = arrows[(i, j), tuple(to)]
    return "\n".join(map("".join, rows))


def disinfection(p: Parameters) -> str | None:
    """Slabs of thickness 1: every set of those across the shortest axis, and a vertex cover of what it leaves."""
    sizes, cells = (p["A"], p["B"], p["C"]), p["one_coordinates"]
    if min(sizes) > MOST_SLABS:
        return None
    axis = sizes.index(min(sizes))
    left, right = (other for other in range(3) if other != axis)
    best: list[tuple[int, int]] | None = None
    for size in range(sizes[axis] + 1):
        for slabs in combinations(range(sizes[axis]), size):
            cover = _cover((cell[left], cell[right]) for cell in cells if cell[axis] not in slabs)
            chosen = [(axis, i) for i in slabs] + [(left if side == "left" else right, i) for side, i in cover]
            if best is None or len(chosen) < len(best):
                best = chosen
    assert best is not None
    boxes = [[(i, i + 1) if on == axis else (0, sizes[axis]) for axis in range(3)] for on, i in best]
    return "\n".join(_line(chain.from_iterable(box)) for box in boxes)


# Trees and games on graphs


def dyn_dynamite(p: Parameters) -> str:
    """The least radius for which this greedy finds enough: the deepest key left gets a centre as high as can be."""
    tree = nx.Graph(p["edges"])
    distance = dict(nx.all_pairs_shortest_path_length(tree))
    parent = dict(nx.bfs_predecessors(tree, 0))
    keys = sorted(p["key_vertices"], key=lambda v: -distance[0][v])
    for radius in range(len(tree)):
        centres: list[int] = []
        for key in keys:
            if all(distance[key][centre] > radius for centre in centres):
                centre = key
                for _ in range(radius):
                    centre = parent.get(centre, 0)
                centres.append(centre)
        if len(centres) <= p["M"]:
            others = [v for v in tree if v not in centres]
            return _line([*centres, *others[: p["M"] - len(centres)]])
    raise AssertionError("a radius as large as the tree is enough")


def gas_fire_extinguishers(p: Parameters) -> str | None:
    """The smallest collection of extinguishers, of all there are, to which a matching can assign every vertex."""
    if p["N"] > MOST_EXTINGUISHED:
        return None
    distance = dict(nx.all_pairs_shortest_path_length(nx.Graph(p["edges"])))
    for number in range(1, p["N"] + 1):
        for places in combinations_with_replacement(range(p["N"]), number):
            uses = [place for place in places for _ in range(p["S"])]
            within = ((u, k) for u in range(p["N"]) for k, place in enumerate(uses) if distance[u][place] <= p["K"])
            used = _matching(within)
            if len(used) == p["N"]:
                return _line(uses[used[u]] for u in range(p["N"]))
    raise AssertionError("one extinguisher for each vertex is enough")


def maf_mafia(p: Parameters) -> str:
    """Who is nobody's target survives. For few victims they act first, and so on; for many they act last."""
    return _line(_few_victims(p["TO"]) if p["minimize_or_maximize"] == "minimize" else _many_victims(p["TO"]))


def _few_victims(target: Sequence[int]) -> list[int]:
    threats = [target.count(i) for i in range(len(target))]
    dead: set[int] = set()
    order = [i for i in range(len(target)) if threats[i] == 0]
    for i in order:  # it grows: those whose threats are all dead
        victim = target[i]
        if victim not in dead:
            dead.add(victim)
            threats[target[victim]] -= 1
            if threats[target[victim]] == 0 and target[victim] not in dead:
                order.append(target[victim])
    for i in range(len(target)):  # of what is left, cycles, every other one dies
        while i not in dead and i not in order:
            order.append(i)
            dead.add(target[i])
            i = target[target[i]]
    return order + [i for i in range(len(target)) if i not in order]


def _many_victims(target: Sequence[int]) -> list[int]:
    threats = [target.count(i) for i in range(len(target))]
    outside = [i for i in range(len(target)) if threats[i] == 0]
    for i in outside:  # it grows: all that stand on no cycle, before what they aim at
        threats[target[i]] -= 1
        if threats[target[i]] == 0:
            outside.append(target[i])
    order: list[int] = []
    attacked = {target[i] for i in outside}
    on_cycles = [i for i in range(len(target)) if i not in outside]
    for first in sorted(on_cycles, key=lambda i: i not in attacked):
        if first in order:
            continue
        cycle = [first]
        while target[cycle[-1]] != first:
            cycle.append(target[cycle[-1]])
        # Each shoots before it is shot, but for the last, which would shoot the first: somebody outside may do that.
        order += [*cycle[-2::-1], cycle[-1]]
    return order + outside[::-1]


def new_nim_game(p: Parameters) -> str:
    """What stays must be independent under xor: largest first, by the greedy of matroids."""
    basis: dict[int, int] = {}
    removed = []
    for heap in sorted(range(p["N"]), key=lambda i: -p["A"][i]):
        rest = p["A"][heap]
        while rest and rest.bit_length() in basis:
            rest ^= basis[rest.bit_length()]
        if rest:
            basis[rest.bit_length()] = rest
        else:
            removed.append(heap + 1)
    return _line(removed)


# Selections


def knapsack(p: Parameters) -> str:
    """Dynamic programming over the capacity."""
    best: list[Found] = [(0, ())] * (p["W_max"] + 1)
    for i, (weight, value) in enumerate(zip(p["W"], p["V"], strict=True)):
        for room in range(p["W_max"], weight - 1, -1):
            before = best[room - weight]
            best[room] = max(best[room], (before[0] + value, (*before[1], i)))
    return _line(best[-1][1])


def max_non_adjacent_k_element_sum(p: Parameters) -> str:
    """Dynamic programming over prefixes and the number chosen."""
    impossible: Found = (-math.inf, ())
    empty = [(0.0, ()), *[impossible] * p["K"]]
    before: list[Found] = empty
    last: list[Found] = empty
    for i, value in enumerate(p["A"]):
        taken = [impossible, *((total + value, (*chosen, i)) for total, chosen in before[:-1])]
        before, last = last, [max(pair) for pair in zip(last, taken, strict=True)]
    return _line(last[p["K"]][1])


def value_diminishing_selection(p: Parameters) -> str:
    """By exchange, factors rise along the sequence; from its end, dynamic programming over the number chosen."""
    best: list[Found] = [(0, ())]
    for item in sorted(range(p["N"]), key=lambda i: -p["R"][i]):
        first = [(total + p["W"][item] - p["R"][item] * k, (item, *later)) for k, (total, later) in enumerate(best)]
        best = [best[0], *(max(pair) for pair in zip(best[1:], first, strict=False)), first[-1]]
    return _line(max(best)[1])


def stunt_flying(p: Parameters) -> str:
    """An element counts its last place less its first: the dearest take the outermost pairs, and the rest is filled."""
    dearest = sorted(range(p["K"]), key=lambda x: -p["C"][x])
    half = dearest[: p["N"] // 2]
    return _line([*half, *dearest[:1] * (p["N"] - 2 * len(half)), *half[::-1]])


def pan_solar_panels(p: Parameters) -> str:
    """The greatest number that has a multiple in both intervals."""
    for divisor in range(min(p["B"], p["D"]), 0, -1):
        x, y = p["B"] // divisor * divisor, p["D"] // divisor * divisor
        if x >= p["A"] and y >= p["C"]:
            return f"{x} {y}"
    raise AssertionError("1 divides everything")


def max_minimum_after_interval_addition(p: Parameters) -> str:
    """The highest goal that a sweep reaches: where too little covers a place, take what reaches furthest right."""
    intervals = dict(enumerate(p["intervals"], 1))

    def reach(goal: int) -> list[int] | None:
        chosen: list[int] = []
        for place, value in enumerate(p["ARRAY"], 1):
            covering = [i for i, (start, end) in intervals.items() if start <= place <= end]
            have = sum(i in covering for i in chosen)
            free = sorted((i for i in covering if i not in chosen), key=lambda i: intervals[i][1])
            need = max(0, math.ceil((goal - value) / p["A"]) - have)
            if need > len(free):
                return None
            chosen += free[len(free) - need :]
        return chosen if len(chosen) <= p["K"] else None

    goals = {value + p["A"] * times for value in p["ARRAY"] for times in range(p["K"] + 1)}
    chosen = next(found for goal in sorted(goals, reverse=True) if (found := reach(goal)) is not None)
    others = [i for i in intervals if i not in chosen]
    return _line(chosen + others[: p["K"] - len(chosen)])


def min_pair_sum_multiplication_permutation(p: Parameters) -> str | None:
    """Every permutation."""
    if p["N"] > MOST_PERMUTED:
        return None

    def cost(permutation: Sequence[int]) -> int:
        return sum(row[j] for row, j in zip(p["A"], permutation, strict=True)) * sum(
            row[j] for row, j in zip(p["B"], permutation, strict=True)
        )

    return _line(min(permutations(range(p["N"])), key=cost))


def min_swap_two_permutations(p: Parameters) -> str:
    """A value that stands twice says that both of its places are swapped or just one: two colours of each component."""
    where: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for side, array in enumerate((p["A"], p["B"])):
        for i, value in enumerate(array):
            where[value].append((side, i))
    graph = nx.Graph()
    graph.add_nodes_from(range(p["N"]))
    for (side, i), (other_side, j) in where.values():
        if i != j:
            graph.add_edge(i, j, differ=side == other_side)
    swapped: list[int] = []
    for component in nx.connected_components(graph):
        first = next(iter(component))
        is_swapped = {first: False}
        for i, j in nx.bfs_edges(graph, first):
            is_swapped[j] = is_swapped[i] ^ graph.edges[i, j]["differ"]
        sides = [[i for i in component if is_swapped[i] is side] for side in (False, True)]
        swapped += min(sides, key=len)
    return _line(swapped)


# Divisions into batches


def cleaning_up(p: Parameters) -> str:
    """Dynamic programming over the last batch."""
    return _line(_batches(p["N"], lambda start, end: len(set(p["A"][start:end])) ** 2)[1])


def quadratic_function_segmentation(p: Parameters) -> str:
    """Dynamic programming over the last batch."""

    def loss(start: int, end: int) -> int:
        x = sum(p["xs"][start:end])
        return -(p["A_coef"] * x * x + p["B_coef"] * x + p["C_coef"])

    return _line(_batches(p["N"], loss)[1])


def warehouse_construction(p: Parameters) -> str:
    """A warehouse ends a batch of factories, but for a batch at the end that makes nothing."""

    def is_idle(start: int, end: int) -> bool:
        return end == p["N"] and not any(p["P"][start:end])

    def cost(start: int, end: int) -> int:
        if is_idle(start, end):
            return 0
        at = p["D"][end - 1]
        return p["C"][end - 1] + sum(p["P"][i] * (at - p["D"][i]) for i in range(start, end))

    ends = _batches(p["N"], cost)[1]
    starts = (0, *ends[:-1])
    return _line(end - 1 for start, end in zip(starts, ends, strict=True) if not is_idle(start, end))


def min_division_sum_xor(p: Parameters) -> str:
    """Bit by bit from the highest: do without it, if few enough batches can."""
    total = (0, *accumulate(p["A"]))
    allowed = (1 << total[-1].bit_length()) - 1

    def divide(allowed: int) -> Found:
        return _batches(p["N"], lambda start, end: math.inf if (total[end] - total[start]) & ~allowed else 1)

    for bit in reversed(range(allowed.bit_length())):
        if divide(allowed & ~(1 << bit))[0] <= p["K"]:
            allowed &= ~(1 << bit)
    return _line(divide(allowed)[1])


# Subsequences and intervals


def weighted_lis(p: Parameters) -> str:
    """Dynamic programming over the last index."""
    values, weights = p["arrayA"], p["arrayB"]
    return _line(max(_chains(p["N"], lambda j, i: values[j] <= values[i], lambda i: weights[i]))[1])


def lis_lds_concatenation(p: Parameters) -> str:
    """For each peak the longest way up to it and the longest way down, which is a way up from the other end."""
    values = p["array"]
    up = _chains(len(values), lambda j, i: values[j] < values[i], lambda _: 1)
    down = _chains(len(values), lambda j, i: values[~j] < values[~i], lambda _: 1)[::-1]
    peak = max(range(len(values)), key=lambda i: up[i][0] + down[i][0])
    return _line([*up[peak][1], *(len(values) - 1 - i for i in down[peak][1][-2::-1])])


def cornfield(p: Parameters) -> str:
    """Raises may all reach to the end; dynamic programming over the last index kept and the raises begun by then."""
    heights, most = p["H"], p["K"]
    best: dict[tuple[int, int], Found] = {}
    for i in range(p["N"]):
        ends: dict[tuple[int, int], Found] = {(i, raises): (1, (i,) * raises) for raises in range(most + 1)}
        for (j, before), (length, starts) in best.items():
            for raises in range(before, most + 1):
                if heights[j] + before <= heights[i] + raises:
                    longer = length + 1, (*starts, *(i,) * (raises - before))
                    ends[i, raises] = max(ends[i, raises], longer)
        best |= ends
    return "\n".join(f"{start} {p['N'] - 1}" for start in max(best.values())[1])


def making_grade(p: Parameters) -> str:
    """Dynamic programming over the last value, which may be one of the given ones; in both directions."""

    def rising(array: Sequence[int]) -> Found:
        values = sorted(set(array))
        best: list[Found] = [(0, ())] * len(values)
        for wanted in array:
            up_to = accumulate(best, min)
            best = [
                (cost + abs(wanted - value), (*chosen, value))
                for (cost, chosen), value in zip(up_to, values, strict=True)
            ]
        return min(best)

    (up_cost, up), (down_cost, down) = rising(p["A"]), rising(p["A"][::-1])
    return _line(up if up_cost <= down_cost else down[::-1])


def wil(p: Parameters) -> str:
    """Every interval, with the heaviest stretch in it set to 0."""
    total, length = (0, *accumulate(p["A"])), p["N"]
    for size in range(length, 0, -1):
        width = min(p["D"], size)
        for start in range(length - size + 1):
            zero = max(range(start, start + size - width + 1), key=lambda i: total[i + width] - total[i])
            if total[start + size] - total[start] - (total[zero + width] - total[zero]) <= p["P"]:
                return _line((zero + 1, zero + width, start + 1, start + size))
    raise AssertionError("an interval of one element, set to 0, sums to 0")


def longest_max_diff_bounded_interval(p: Parameters) -> str:
    """Every interval, the longest first."""
    for size in range(p["N"], 0, -1):
        for start in range(p["N"] - size + 1):
            part = p["A"][start : start + size]
            if max(part) - min(part) <= p["K"]:
                return f"{start} {start + size}"
    raise AssertionError("one element differs from itself by 0")


def construct_hack_interval(p: Parameters) -> str:
    """Two of the first sums from 1 on leave the same remainder, and the sum between them leaves none."""
    ends_at = {0: 0}
    total = 0
    for x in range(1, p["MOD"] + 1):
        total = (total + sum(map(int, str(x)))) % p["MOD"]
        if total in ends_at:
            return f"{ends_at[total] + 1} {x}"
        ends_at[total] = x
    raise AssertionError("more sums than remainders")


def max_sum_lds(p: Parameters) -> str:
    """Of equal lengths the later is smaller; a length needs one less before it. The smallest values go far right."""
    lengths = p["A"][1:]
    order = nx.DiGraph()  # from the smaller value to the larger
    order.add_nodes_from(range(len(lengths)))
    for i, length in enumerate(lengths):
        for wanted, is_smaller in ((length, True), (length - 1, False)):
            j = max((j for j in range(i) if lengths[j] == wanted), default=None)
            if j is not None:
                order.add_edge(*((i, j) if is_smaller else (j, i)))
    rank = {i: value for value, i in enumerate(nx.lexicographical_topological_sort(order, key=lambda i: -i), 1)}
    return _line(rank[i] for i in range(len(lengths)))


# Strings


def longest_double_palindrome(p: Parameters) -> str:
    """For each middle the longest palindrome on either side."""
    text = p["S"]

    def around(middle: int) -> tuple[int, int, int]:
        start = min(a for a in range(middle) if _is_palindrome(text[a:middle]))
        end = max(b for b in range(middle + 1, len(text) + 1) if _is_palindrome(text[middle:b]))
        return start, middle, end

    return _line(max((around(middle) for middle in range(1, len(text))), key=lambda found: found[2] - found[0]))


def longest_repeated_palindrome(p: Parameters) -> str:
    """Every substring."""
    quarters = (
        (part, len(part) // 4) for part in sorted(_substrings(p["S"]), key=len, reverse=True) if len(part) % 4 == 0
    )
    return next(part for part, n in quarters if part == 2 * (part[:n] + part[:n][::-1]))


def max_weight_palindromic_substring(p: Parameters) -> str:
    """Every substring that is a palindrome, and how often it occurs."""
    times: dict[str, int] = defaultdict(int)
    for part in _substrings(p["S"]):
        times[part] += _is_palindrome(part)
    return max(times, key=lambda part: len(part) * times[part])


def shortest_unicolor_substring(p: Parameters) -> str:
    """For each length of run, dynamic programming over the last character and the run that it ends."""
    for longest in range(1, p["N"] + 1):
        best: dict[tuple[str, int], tuple[int, str]] = {("", 0): (0, "")}
        for wanted in p["S"]:
            after: dict[tuple[str, int], tuple[int, str]] = {}
            for ((last, run), (changes, text)), char in product(best.items(), "01"):
                run = run + 1 if char == last else 1
                if run <= longest:
                    found = changes + (char != wanted), text + char
                    after[char, run] = min(found, after.get((char, run), found))
            best = after
        changes, text = min(best.values())
        if changes <= p["K"]:
            return text
    raise AssertionError("no change is needed for runs as long as the string")


def _is_palindrome(text: str) -> bool:
    return text == text[::-1]


def _substrings(text: str) -> Iterator[str]:
    return (text[a:b] for a, b in combinations(range(len(text) + 1), 2))


# Arithmetic and swaps


def countdown(p: Parameters) -> str | None:
    """Every value that any part of the numbers can have; then the nearest that two complementary parts make.

    A negative value is as good as its opposite, by swapping the sides of a difference, so none is kept below 0.
    """
    operands, target = p["operands"], p["target"]
    if len(operands) > MOST_OPERANDS:
        return None

    @cache
    def values(part: frozenset[int]) -> Mapping[float, str]:
        if len(part) == 1:
            (i,) = part
            return {float(operands[i]): str(operands[i])}
        found: dict[float, str] = {}
        for left, right in _halves(part):
            for (a, left_text), (b, right_text) in product(values(left).items(), values(right).items()):
                for value, text in _results(a, left_text, b, right_text):
                    found.setdefault(value, text)
        return found

    best = math.inf, ""
    for left, right in _halves(frozenset(range(len(operands)))):
        for (a, left_text), (b, right_text) in product(values(left).items(), values(right).items()):
            for value, text in _results(a, left_text, b, right_text):
                if abs(value - target) < best[0]:
                    best = abs(value - target), text
                    if best[0] < 1e-10:  # nothing but rounding
                        return text
    return best[1]


def _halves(part: frozenset[int]) -> list[tuple[frozenset[int], frozenset[int]]]:
    """The ways to divide a set in two, even ones first: they have the fewest values to combine."""
    first, *others = sorted(part)
    lefts = (frozenset((first, *some)) for size in range(len(others)) for some in combinations(others, size))
    return sorted(((left, part - left) for left in lefts), key=lambda pair: abs(len(pair[0]) - len(pair[1])))


def _results(a: float, left: str, b: float, right: str) -> Iterator[tuple[float, str]]:
    yield a + b, f"({left}+{right})"
    yield a * b, f"({left}*{right})"
    yield (a - b, f"({left}-{right})") if a >= b else (b - a, f"({right}-{left})")
    if b:
        yield a / b, f"({left}/{right})"
    if a:
        yield b / a, f"({right}/{left})"


def slo_elephants(p: Parameters) -> str:
    """A cycle is undone by its cheapest item, or by the cheapest of all, which is swapped in for it and out again."""
    cost, target, items = p["C"], p["B"], list(p["A"])
    place = {item: i for i, item in enumerate(items)}
    swaps: list[str] = []

    def swap(a: int, b: int) -> None:
        swaps.append(f"{a} {b}")
        place[a], place[b] = place[b], place[a]

    wanted = {item: i for i, item in enumerate(target)}
    graph = nx.DiGraph((item, items[wanted[item]]) for item in items)
    cheapest = min(items, key=lambda item: cost[item])
    for cycle in nx.strongly_connected_components(graph):
        own = min(cycle, key=lambda item: cost[item])
        inside = (len(cycle) - 2) * cost[own]
        outside = cost[own] + (len(cycle) + 1) * cost[cheapest]
        walker = own
        if outside < inside:
            swap(cheapest, own)
            walker = cheapest
        while any(place[item] != wanted[item] for item in cycle):
            swap(walker, target[place[walker]])
    return "\n".join(swaps)


# Points


def largest_convex_polygon(p: Parameters) -> str:
    """From each lowest corner, the others by angle: dynamic programming over the last edge."""
    points = {label: point for label, point in enumerate(p["points"], 1)}

    def turn(a: int, b: int, c: int) -> int:
        (ax, ay), (bx, by), (cx, cy) = points[a], points[b], points[c]
        return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)

    largest: tuple[int, ...] = ()
    for lowest, (x0, y0) in points.items():
        above = [label for label, (x, y) in points.items() if (y, x) > (y0, x0)]
        above.sort(key=lambda label: math.atan2(points[label][1] - y0, points[label][0] - x0))
        best: dict[tuple[int, int], tuple[int, ...]] = {}
        for b, c in combinations(above, 2):
            before = [best[a, b] for a in above[: above.index(b)] if turn(a, b, c) > 0]
            best[b, c] = (*max(before, key=len, default=(lowest, b)), c)
        largest = max([largest, *best.values()], key=len)
    return _line(largest)


def largest_rectangle_among_points(p: Parameters) -> str:
    """Two pairs of points are the diagonals of a rectangle where they have the same middle and the same length."""
    points = p["points"]
    diagonals: dict[tuple[int, int, int], list[tuple[int, int]]] = defaultdict(list)
    for i, j in combinations(range(len(points)), 2):
        (ax, ay), (bx, by) = points[i], points[j]
        diagonals[ax + bx, ay + by, (ax - bx) ** 2 + (ay - by) ** 2].append((i, j))

    def area(corners: Sequence[int]) -> int:  # the diagonals are the first two and the last two
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = (points[i] for i in corners)
        return abs((bx - ax) * (dy - cy) - (by - ay) * (dx - cx)) // 2

    rectangles = [one + other for pairs in diagonals.values() for one, other in combinations(pairs, 2)]
    return _line(max(rectangles, key=area))


SOLVERS: Mapping[str, Callable[[Parameters], str | None]] = MappingProxyType(
    {
        "MinimumSumDifferenceSubmatrix": minimum_sum_difference_submatrix,
        "MinimumUnconflictedGridKMax": minimum_unconflicted_grid_kmax,
        "CirculatingGrid": circulating_grid,
        "Disinfection": disinfection,
        "DynDynamite": dyn_dynamite,
        "GasFireExtinguishers": gas_fire_extinguishers,
        "MafMafia": maf_mafia,
        "NewNimGame": new_nim_game,
        "Knapsack": knapsack,
        "Max_NonAdjacent_KElementSum": max_non_adjacent_k_element_sum,
        "ValueDiminishingSelection": value_diminishing_selection,
        "StuntFlying": stunt_flying,
        "PanSolarPanels": pan_solar_panels,
        "MaxMinimum_AfterIntervalAddition": max_minimum_after_interval_addition,
        "MinPairSumMultiplicationPermutation": min_pair_sum_multiplication_permutation,
        "MinSwapTwoPermutations": min_swap_two_permutations,
        "CleaningUp": cleaning_up,
        "QuadraticFunctionSegmentation": quadratic_function_segmentation,
        "WarehouseConstruction": warehouse_construction,
        "MinDivisionSumXor": min_division_sum_xor,
        "WeightedLIS": weighted_lis,
        "LIS_LDS_Concatenation": lis_lds_concatenation,
        "Cornfield": cornfield,
        "MakingGrade": making_grade,
        "WIL": wil,
        "LongestMaxDiffBoundedInterval": longest_max_diff_bounded_interval,
        "ConstructHackInterval": construct_hack_interval,
        "MaxSumLDS": max_sum_lds,
        "Longest_DoublePalindrome": longest_double_palindrome,
        "Longest_RepeatedPalindrome": longest_repeated_palindrome,
        "MaxWeightPalindromicSubstring": max_weight_palindromic_substring,
        "ShortestUnicolorSubstring": shortest_unicolor_substring,
        "CountdownClose": countdown,
        "CountdownEqual": countdown,
        "SLOElephants": slo_elephants,
        "LargestConvexPolygon": largest_convex_polygon,
        "LargestRectangle_AmongPoints": largest_rectangle_among_points,
    }
)
