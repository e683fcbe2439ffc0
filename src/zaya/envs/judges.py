"""Judges of answers to tasks that a package makes: no scorer of reasoning-gym or reasoning-core sees an answer.

Their scorers run some answers as Python (`eval`, sympy's parser), pay in part for others, and a few pay for anything. A
judge here gets what is known of a problem and the answer, and says whether it is right. Where a task has one answer it
compares; where there are many it plays them by the rules of the puzzle. An answer is read strictly, as the prompt asks
for it: what has anything beside it is wrong.
"""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from zaya.envs import expression
from zaya.envs.rlve_judges import JUDGES as RLVE_JUDGES

LONGEST = 20_000
"""Characters of an answer; no task asks for as many."""
_MOST_MOVES = 5000

Facts = Mapping[str, Any]
Judge = Callable[[Facts, str], bool]

_FENCE = re.compile(r"```[a-zA-Z]*\n(.*?)\n?```", re.DOTALL)
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\text{", "}"), ("\\texttt{", "}"), ("**", "**"), ("`", "`"))
_DECIMAL = re.compile(r"[+-]?(\d{1,60}(\.\d{0,60})?|\.\d{1,60})([eE][+-]?\d{1,3})?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", re.ASCII)
_RATIO = re.compile(r"([+-]?\d{1,100})\s*/\s*(\d{1,100})", re.ASCII)
_LATEX_RATIO = re.compile(r"([+-]?)\\[dt]?frac\{(\d{1,100})\}\{(\d{1,100})\}", re.ASCII)


def bare(answer: str) -> str:
    """An answer without the markup that may stand around all of it."""
    answer = answer.strip()
    if (fenced := _FENCE.fullmatch(answer)) is not None:
        answer = fenced[1].strip("\n")
    for before, after in _WRAPPERS:
        inside = answer[len(before) : len(answer) - len(after)]
        if len(answer) > len(before) + len(after) and answer == before + inside + after and before not in inside:
            answer = inside.strip()
    return answer


# ----- reading


def decimal(text: str) -> Decimal | None:
    """`12`, `-3.50`, `1,234.5`, `1.2e-3`."""
    text = text.strip()
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    return Decimal(text) if _DECIMAL.fullmatch(text) else None


def ratio(text: str) -> tuple[int, int] | None:
    """Numerator and denominator, as they are written: `4/6`, `\\frac{4}{6}`; a whole number is over 1."""
    text = text.strip().strip("$").strip()
    if (found := _RATIO.fullmatch(text)) is not None:
        return int(found[1]), int(found[2])
    if (found := _LATEX_RATIO.fullmatch(text)) is not None:
        return int(found[1] + found[2]), int(found[3])
    return (int(text), 1) if re.fullmatch(r"[+-]?\d{1,100}", text, re.ASCII) else None


def value(text: str) -> Fraction | None:
    """A number, written as a decimal or as a ratio."""
    if (number := decimal(text)) is not None:
        return Fraction(number)
    found = ratio(text)
    return None if found is None or found[1] == 0 else Fraction(*found)


def parsed(text: str) -> Any:
    """JSON; None for what is none, and for numbers that JSON does not have."""

    def refuse(constant: str) -> None:
        raise ValueError(f"not a number: {constant}")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def listed(text: str) -> list[str] | None:
    """The items of a list in brackets, `[1, 2]` or `['1', '2']`, or of one without them, `1, 2`."""
    text = text.strip()
    if text.startswith("[") != text.endswith("]"):
        return None
    inside = text[1:-1] if text.startswith("[") else text
    if not inside.strip():
        return []
    return [item.strip().strip("'\"").strip() for item in inside.split(",")]


def table(text: str) -> list[list[str]] | None:
    """Rows of cells between blanks, or a list of lists."""
    text = text.strip()
    if text.startswith("["):
        rows = parsed(text)
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            return None
        return [[str(cell) for cell in row] for row in rows]
    return [line.split() for line in text.splitlines() if line.strip()]


def digits(text: str) -> list[list[int]] | None:
    """A table of small whole numbers."""
    rows = table(text)
    if rows is None or not all(re.fullmatch(r"\d{1,6}", cell, re.ASCII) for row in rows for cell in row):
        return None
    return [[int(cell) for cell in row] for row in rows]


def moves(text: str, pattern: str) -> list[str] | None:
    """Moves of one form, with blanks, commas or arrows between them, and nothing else."""
    found = [word for word in re.split(r"[\s,]+|→|->", text) if word]
    return found if 0 < len(found) <= _MOST_MOVES and all(re.fullmatch(pattern, word) for word in found) else None


# ----- one right answer


def text(facts: Facts, answer: str) -> bool:
    """Letter by letter, but for blanks at the ends of lines and how many there are between words."""
    return _lines(answer) == _lines(facts["answer"])


def word(facts: Facts, answer: str) -> bool:
    """The same, in small letters or capitals, with or without a full stop."""
    return _lines(answer.casefold().removesuffix(".")) == _lines(facts["answer"].casefold().removesuffix("."))


def letters(facts: Facts, answer: str) -> bool:
    """One word, which may be spaced out."""
    return "".join(answer.split()).casefold() == "".join(facts["answer"].split()).casefold()


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.strip().splitlines() if line.strip()]


def number(facts: Facts, answer: str) -> bool:
    """A decimal number of that very value."""
    found = decimal(answer)
    return found is not None and found == decimal(facts["answer"])


def quantity(facts: Facts, answer: str) -> bool:
    """A number of that very value, as a decimal or as a ratio; where the reference is none, its letters."""
    right = value(facts["answer"])
    return value(answer) == right if right is not None else unspaced(facts, answer)


def unspaced(facts: Facts, answer: str) -> bool:
    """Letter by letter, but for blanks."""
    return "".join(answer.split()) == "".join(facts["answer"].split())


def indexes(facts: Facts, answer: str) -> bool:
    """A set of numbers in any order; one of several sets, where there are."""
    found = answer.replace(",", " ").split()
    if not found or len(set(found)) != len(found) or not all(re.fullmatch(r"\d{1,4}", one, re.ASCII) for one in found):
        return False
    right = facts.get("valid_supports") or [facts["answer"].split()]
    return sorted(map(int, found)) in [sorted(map(int, one)) for one in right]


def near(facts: Facts, answer: str) -> bool:
    """A number as near as the `tolerance` of the task."""
    found, right = value(answer), value(facts["answer"])
    return found is not None and right is not None and abs(found - right) <= Fraction(str(facts["tolerance"]))


def chance(facts: Facts, answer: str) -> bool:
    """A probability to four figures, as a ratio or as a decimal."""
    found, right = value(answer), value(facts["answer"])
    return found is not None and right is not None and abs(found - right) <= right / 10_000


def three_figures(facts: Facts, answer: str) -> bool:
    found, right = decimal(answer), decimal(facts["answer"])
    return found is not None and right is not None and f"{found:.2e}" == f"{right:.2e}"


def candidate(facts: Facts, answer: str) -> bool:
    """One of several numbers: the one that is right, and not one beside it."""
    found = decimal(answer)
    if found is None:
        return False
    nearest = min(facts["candidates"], key=lambda one: abs(Decimal(str(one)) - found))
    return nearest == facts["solution"] and abs(Decimal(str(nearest)) - found) < Decimal("0.01")


def hexadecimal(facts: Facts, answer: str) -> bool:
    form = re.compile(r"-?0x[0-9a-f]{1,200}")
    found = answer.lower()
    return form.fullmatch(found) is not None and int(found, 16) == int(facts["answer"], 16)


def reduced(facts: Facts, answer: str) -> bool:
    """A ratio in its lowest terms."""
    found = ratio(answer)
    return found is not None and found == ratio(facts["answer"])


def factors(facts: Facts, answer: str) -> bool:
    """Prime factors in any order: `2 × 2 × 3`."""
    parts = re.split(r"\s*(?:×|\*|x|\\times|\\cdot)\s*", answer.strip())
    if len(parts) > 100 or not all(re.fullmatch(r"\d{1,20}", part, re.ASCII) for part in parts):
        return False
    return sorted(map(int, parts)) == sorted(int(part) for part in facts["answer"].split("×"))


def complex_number(facts: Facts, answer: str) -> bool:
    """To a hundredth."""
    found, right = _complex(answer), _complex(facts["answer"])
    return found is not None and right is not None and abs(found - right) <= 0.01


def _complex(text: str) -> complex | None:
    text, unsigned = "".join(text.split()), r"(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})"
    both = re.fullmatch(rf"([+-]?{unsigned})?(?:([+-]?)({unsigned})?\*?i)?", text, re.ASCII)
    if both is None or not text:
        return None
    if not text.endswith("i"):
        return complex(float(both[1]), 0)
    if both[1] is not None and not both[2]:  # `12i` is read as the first number; `1 2i` is none
        return complex(0, float(both[1] + (both[3] or ""))) if " " not in text else None
    return complex(float(both[1] or 0), float(f"{both[2]}{both[3] or 1}"))


def numbers(facts: Facts, answer: str) -> bool:
    """A list of numbers, in order."""
    found, right = listed(answer), listed(facts["answer"])
    return found is not None and right is not None and _decimals(found) == _decimals(right) is not None


def _decimals(items: Sequence[str]) -> list[Decimal] | None:
    read = [decimal(item) for item in items]
    return [item for item in read if item is not None] if None not in read else None


def roots(facts: Facts, answer: str) -> bool:
    """All real solutions in any order, to four places."""
    found, right = listed(answer), listed(facts["answer"])
    if not found or not right or len(found) != len(right):
        return False
    read, known = _decimals(found), _decimals(right)
    if read is None or known is None:
        return False
    return all(abs(a - b) <= Decimal("0.0002") for a, b in zip(sorted(read), sorted(known), strict=True))


def words(facts: Facts, answer: str) -> bool:
    """A list of words, in order."""
    found = listed(answer)
    return found is not None and found == listed(facts["answer"])


def json_value(facts: Facts, answer: str) -> bool:
    """The same list, whatever the blanks in it."""
    found = parsed(answer)
    return isinstance(found, list) and json.dumps(found) == json.dumps(parsed(facts["answer"]))


def groups(facts: Facts, answer: str) -> bool:
    """Lists of words; neither their order nor that within them counts."""
    found = parsed(answer)
    if not isinstance(found, list) or not all(isinstance(group, list) for group in found):
        return False
    if not all(isinstance(item, str) for group in found for item in group):
        return False
    return sorted(sorted(group) for group in found) == sorted(sorted(group) for group in parsed(facts["answer"]))


def partitions(facts: Facts, answer: str) -> bool:
    """All ways to cut a string, in any order, each once."""
    found = parsed(answer)
    if not isinstance(found, list) or not all(isinstance(way, list) for way in found):
        return False
    return sorted(map(json.dumps, found)) == sorted(map(json.dumps, parsed(facts["answer"])))


def cells(facts: Facts, answer: str) -> bool:
    """A table of numbers."""
    found, right = table(answer), table(facts["answer"])
    if found is None or right is None or [len(row) for row in found] != [len(row) for row in right]:
        return False
    pairs = [(decimal(a), decimal(b)) for x, y in zip(found, right, strict=True) for a, b in zip(x, y, strict=True)]
    slack = Decimal(str(facts.get("tolerance", 0)))
    return all(a is not None and b is not None and abs(a - b) <= slack for a, b in pairs)


def duration(facts: Facts, answer: str) -> bool:
    """`3 days`, `12:30`, `12:30:05.250`, `2 days, 01:05`."""
    found = _duration(answer)
    return found is not None and found == _duration(facts["answer"])


def _duration(text: str) -> timedelta | None:
    form = re.compile(r"(?:(\d{1,7})(?: days?)?)?(?:,? ?(\d{1,3}):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
    found = form.fullmatch(" ".join(text.split()).lower())
    if found is None or not found[0] or (found[1] and found[2] and "day" not in found[0]):
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[:4])
    return timedelta(days, seconds, int((found[5] or "0").ljust(6, "0")), 0, minutes, hours)


def measure(facts: Facts, answer: str) -> bool:
    """An angle, a radius, or the two coordinates of a point, rounded as the task asks."""
    found, right = (re.sub(r"^\((.*)\)$|°$|\^\\circ$", r"\1", side.strip()) for side in (answer, facts["answer"]))
    pairs = list(zip(map(decimal, found.split(",")), map(decimal, right.split(",")), strict=False))
    if found.count(",") != right.count(","):
        return False
    return all(a is not None and b is not None and abs(a - b) <= Decimal("0.0101") for a, b in pairs)


def roles(facts: Facts, answer: str) -> bool:
    """Who is what: `Zoey is a devil, and Joseph is an angel`, in any order."""
    found = _roles(answer)
    return found is not None and found == _roles(facts["answer"])


def _roles(text: str) -> list[tuple[str, str]] | None:
    claims = re.split(r",\s*and\s+|\s+and\s+|,\s*", text.strip().removesuffix(".").lower())
    read = [re.fullmatch(r"([a-z]+) is an? ([a-z]+)", claim.strip()) for claim in claims]
    return sorted((one[1], one[2]) for one in read if one is not None) if all(read) else None


# ----- formulas


def uses_all(facts: Facts, answer: str) -> bool:
    """Whole numbers under + - * /, each of those given once, that come to the target."""
    found = expression.exact(answer)
    if found is None:
        return False
    return found[0] == facts.get("target", 24) and sorted(found[1]) == sorted(int(n) for n in facts["numbers"])


def antiderivative(facts: Facts, answer: str) -> bool:
    """Its slope is the integrand. The constant of integration may be any; a number stands for it here."""
    formula = re.sub(r"\bC\b", "0.37", answer)
    return RLVE_JUDGES["Integral"]({"f_prime": facts["integrand"]}, formula)


def polynomial(facts: Facts, answer: str) -> bool:
    """Multiplied out: a sum of terms `3*x**2`, as the product itself would be no answer."""
    found = _polynomial(answer)
    return found is not None and found == _polynomial(facts["answer"])


def _polynomial(text: str) -> Counter[tuple[str, int]] | None:
    text = "".join(text.split()).replace("^", "**")
    term = r"(?:(\d{1,60})\*)?([a-zA-Z])(?:\*\*(\d{1,4}))?|(\d{1,60})"
    if len(text) > 4000 or not re.fullmatch(rf"[+-]?(?:{term})(?:[+-](?:{term}))*", text, re.ASCII):
        return None
    found: Counter[tuple[str, int]] = Counter()
    for sign, times, name, power, alone in re.findall(rf"([+-]?)(?:{term})", text, re.ASCII):
        factor = int(f"{sign}{alone or times or 1}")
        found[(name, int(power or 1)) if name else ("", 0)] += factor
    return Counter({key: factor for key, factor in found.items() if factor != 0})


# ----- many right answers, played by the rules


def cheapest_path(facts: Facts, answer: str) -> bool:
    """Nodes of a path that costs as little as any; `None` where there is none."""
    right = facts["optimal_cost"]
    if answer.casefold() == "none" or right is None:
        return answer.casefold() == "none" and right is None
    found = moves(answer, r"\d{1,6}")
    if found is None or (int(found[0]), int(found[-1])) != (facts["start_node"], facts["end_node"]):
        return False
    cost = {(edge[0], edge[1]): edge[2] if len(edge) == 3 else 1 for edge in facts["edges"]}
    described = facts["graph_description"].lower()
    if not any(sign in described for sign in ("directed", "digraph", "source", "points", "->")):
        cost |= {(b, a): by for (a, b), by in cost.items()}
    steps = [(int(a), int(b)) for a, b in pairwise(found)]
    return all(step in cost for step in steps) and sum(cost[step] for step in steps) == right


def plan(facts: Facts, answer: str) -> bool:
    """Actions, one in a line, as many as are asked for, each with what it needs, that reach the goal."""
    calls, cue = [line.strip() for line in answer.splitlines() if line.strip()], facts["plan_cue"]
    if len(calls) != cue["length"] or any(calls[step["step"] - 1] != step["action"] for step in cue["steps"]):
        return False
    actions, state = {action["call"]: action for action in facts["actions"]}, set(facts["initial_true"])
    for call in calls:
        if call not in actions or not _may(actions[call], state):
            return False
        state = state - set(actions[call]["delete"]) | set(actions[call]["add"])
    return state.issuperset(facts["goal_true"]) and state.isdisjoint(facts["goal_false"])


def _may(action: Mapping[str, Any], state: set[str]) -> bool:
    return state.issuperset(action["pre_true"]) and state.isdisjoint(action["pre_false"])


def cryptarithm(facts: Facts, answer: str) -> bool:
    """Digits for letters: `A=1,B=2`."""
    pairs = [re.fullmatch(r"([A-Z])\s*=\s*(\d)", pair.strip(), re.ASCII) for pair in answer.split(",")]
    digit = {pair[1]: int(pair[2]) for pair in pairs if pair is not None}
    addends, total = facts["words_letters"], facts["result_letters"]
    if (
        len(digit) != len(pairs)
        or len(set(digit.values())) != len(digit)
        or set(digit) != set("".join([*addends, total]))
    ):
        return False
    if any(digit[word[0]] == 0 for word in (*addends, total)):
        return False

    def read(word: str) -> int:
        return int("".join(str(digit[letter]) for letter in word))

    return sum(map(read, addends)) == read(total)


def coloring(facts: Facts, answer: str) -> bool:
    """A colour of those allowed for each vertex, and another one across each edge."""
    found, puzzle = parsed(answer), facts["puzzle"]
    if not isinstance(found, dict) or set(found) != {str(vertex) for vertex in puzzle["vertices"]}:
        return False
    if not all(type(color) is int and color in puzzle["color_options"] for color in found.values()):
        return False
    return all(found[str(a)] != found[str(b)] for a, b in puzzle["edges"])


def jugs(facts: Facts, answer: str) -> bool:
    """Moves after which one of the jugs holds the target."""
    found, capacity = parsed(answer), facts["puzzle"]["jug_capacities"]
    if not isinstance(found, list) or not 0 < len(found) <= _MOST_MOVES or not all(isinstance(m, str) for m in found):
        return False
    names = {chr(ord("A") + i): i for i in range(len(capacity))}
    held = [0] * len(capacity)
    for move in found:
        match move.replace("->", " ").split():
            case ["fill", jug] if jug in names:
                held[names[jug]] = capacity[names[jug]]
            case ["empty", jug] if jug in names:
                held[names[jug]] = 0
            case ["pour", source, target] if source in names and target in names and source != target:
                a, b = names[source], names[target]
                poured = min(held[a], capacity[b] - held[b])
                held[a], held[b] = held[a] - poured, held[b] + poured
            case _:
                return False
    return facts["puzzle"]["target"] in held


def kakurasu(facts: Facts, answer: str) -> bool:
    found, rows, columns = digits(answer), facts["row_sums"], facts["col_sums"]
    if found is None or [len(row) for row in found] != [len(columns)] * len(rows):
        return False
    if any(cell > 1 for row in found for cell in row):
        return False
    across = [sum(j * cell for j, cell in enumerate(row, 1)) for row in found]
    down = [sum(i * cell for i, cell in enumerate(column, 1)) for column in zip(*found, strict=True)]
    return across == rows and down == columns


def queens(facts: Facts, answer: str) -> bool:
    found, given = table(answer), facts["puzzle"]
    if found is None or [len(row) for row in found] != [len(given)] * len(given):
        return False
    if any(cell not in ("_", "Q") for row in found for cell in row):
        return False
    at = [(i, j) for i, row in enumerate(found) for j, cell in enumerate(row) if cell == "Q"]
    kept = all(found[i][j] == "Q" for i, row in enumerate(given) for j, cell in enumerate(row) if cell == "Q")
    lines = [{i for i, _ in at}, {j for _, j in at}, {i + j for i, j in at}, {i - j for i, j in at}]
    return kept and len(at) == len(given) and all(len(line) == len(at) for line in lines)


def palindrome(facts: Facts, answer: str) -> bool:
    found = answer.lower()
    return found == found[::-1] and sorted(found) == sorted(facts["letters"])


def quantum_lock(facts: Facts, answer: str) -> bool:
    """Buttons that reach the target, as few as can be."""
    buttons = {button["name"]: button for button in facts["buttons"]}
    pressed, at, light = moves(answer.upper(), "[A-Z]"), facts["initial_value"], facts["initial_state"]
    if pressed is None or len(pressed) > facts["answer"].count("→") + 1 or not set(pressed) <= set(buttons):
        return False
    for name in pressed:
        button = buttons[name]
        if button["active_state"] in (light, "any"):
            by = button["value"]
            at = {"add": at + by, "subtract": at - by, "multiply": at * by}[button["type"]]
            light = "green" if light == "red" else "red"
    return at == facts["target_value"]


_ROUTES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def route(facts: Facts, answer: str) -> bool:
    """A shortest way through a grid; `infeasible` where there is none."""
    grid, right = facts["matrix"], facts["answer"].split()
    found = moves(answer.lower(), "up|down|left|right|infeasible")
    if found is None or len(found) != len(right) or "infeasible" in (*found, *right):
        return found == right == ["infeasible"]
    (y, x) = next((i, j) for i, row in enumerate(grid) for j, cell in enumerate(row) if cell == "*")
    for step in found:
        y, x = y + _ROUTES[step][0], x + _ROUTES[step][1]
        if not (0 <= y < len(grid) and 0 <= x < len(grid[0])) or grid[y][x] == "X":
            return False
    return grid[y][x] == "#"


def sokoban(facts: Facts, answer: str) -> bool:
    """Moves after which every box stands on a goal, about as many as needed at most.

    One that is blocked moves nothing, so a walk that is long enough would solve many puzzles.
    """
    steps = answer
    if not re.fullmatch("[LRUD]+", steps) or len(steps) > 2 * len(facts["answer"]) + 10:
        return False
    grid = [line.split() for line in facts["gamestr"].splitlines() if line.strip()]
    cell = {(y, x): mark for y, row in enumerate(grid) for x, mark in enumerate(row)}
    walls, goals = {at for at in cell if cell[at] == "+"}, {at for at in cell if cell[at] in "X%$"}
    boxes = {at for at in cell if cell[at] in "@$"}
    y, x = next(at for at in cell if cell[at] in "*%")
    for step in steps:
        dy, dx = {"L": (0, -1), "R": (0, 1), "U": (-1, 0), "D": (1, 0)}[step]
        to, beyond = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
        if (
            to in walls
            or to not in cell
            or (to in boxes and (beyond in walls or beyond in boxes or beyond not in cell))
        ):
            continue
        if to in boxes:
            boxes = boxes - {to} | {beyond}
        y, x = to
    return boxes <= goals


def latin(facts: Facts, answer: str) -> bool:
    """A square of digits of which there is one; signs between them may be left out."""
    if re.search(r"[^\d\s<>∧∨]", answer):
        return False
    found = digits(re.sub(r"[<>∧∨]", " ", answer))
    return found is not None and found == facts["solution"]


def sudoku(facts: Facts, answer: str) -> bool:
    """Each digit once in every row, column and box, and those that were given where they were."""
    found, given = digits(answer), facts["puzzle"]
    size = len(given)
    box = {4: 2, 9: 3}[size]
    if found is None or [len(row) for row in found] != [size] * size:
        return False
    if any(cell not in (0, found[i][j]) for i, row in enumerate(given) for j, cell in enumerate(row)):
        return False
    lines = [*found, *map(list, zip(*found, strict=True))]
    for top in range(0, size, box):
        lines += [[found[top + i][left + j] for i in range(box) for j in range(box)] for left in range(0, size, box)]
    return all(sorted(line) == list(range(1, size + 1)) for line in lines)


def survo(facts: Facts, answer: str) -> bool:
    """The given numbers, each once, in the empty cells of a table whose margins are sums."""
    found, given = digits(answer), facts["puzzle"]
    if found is None or [len(row) for row in found] != [len(row) for row in given]:
        return False
    pairs = [(a, b) for x, y in zip(found, given, strict=True) for a, b in zip(x, y, strict=True)]
    if any(b not in (0, a) for a, b in pairs):
        return False
    filled = sorted(a for a, b in pairs if b == 0)
    lines = [*found[:-1], *map(list, list(zip(*found, strict=True))[:-1])]
    return filled == sorted(facts["candidate_numbers"]) and all(sum(line[:-1]) == line[-1] for line in lines)


def hanoi(facts: Facts, answer: str) -> bool:
    """Moves by the rules that end with all disks on the target peg; there may be more than needed."""
    pegs: dict[int, list[int]] = {peg: [] for peg in range(1, facts["num_pegs"] + 1)}
    pegs[facts["start_peg"]] = list(range(facts["num_disks"], 0, -1))
    form = re.compile(r"move disk (\d{1,3}) from peg (\d{1,3}) to peg (\d{1,3})\.?", re.IGNORECASE | re.ASCII)
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    for line in lines:
        move = form.fullmatch(line)
        if move is None:
            return False
        disk, source, target = (int(part) for part in move.groups())
        if source not in pegs or target not in pegs or pegs[source][-1:] != [disk]:
            return False
        if source != target and pegs[target] and pegs[target][-1] < disk:
            return False
        pegs[target].append(pegs[source].pop())
    return pegs[facts["target_peg"]] == list(range(facts["num_disks"], 0, -1))


def capture(facts: Facts, answer: str) -> bool:
    """A move of Black that takes as many white stones as any."""
    board = facts["board"]
    size = len(board)
    move = re.fullmatch(r"([A-Z])(\d{1,2})", answer.upper(), re.ASCII)
    if move is None:
        return False
    taken = {(r, c): _taken(board, r, c) for r in range(size) for c in range(size) if board[r][c] == "."}
    found = (size - int(move[2]), ord(move[1]) - ord("A"))
    return taken.get(found, 0) == max(taken.values(), default=0) > 0


def _taken(board: Sequence[Sequence[str]], row: int, column: int) -> int:
    """How many white stones a black one there takes."""
    taken: set[tuple[int, int]] = set()
    for start in _beside(len(board), row, column):
        group, border = {start}, deque([start])
        free = board[start[0]][start[1]] != "O"
        while border and not free:
            for at in _beside(len(board), *border.popleft()):
                stone = board[at[0]][at[1]]
                free = free or (stone == "." and at != (row, column))
                if stone == "O" and at not in group:
                    group.add(at)
                    border.append(at)
        taken |= set() if free else group
    return len(taken)


def _beside(size: int, row: int, column: int) -> list[tuple[int, int]]:
    return [(row + dy, column + dx) for dy, dx in _ROUTES.values() if 0 <= row + dy < size and 0 <= column + dx < size]


def rush_hour(facts: Facts, answer: str) -> bool:
    """Moves after which the car AA stands at the exit."""
    found = moves(answer, "[A-Z][+-][1-5]")
    cars, state, walls = _parked(facts["board_config"])
    for move in found or ():
        if move[0] not in cars:
            return False
        index = list(cars).index(move[0])
        start = state[index] + int(move[1:])
        if start not in _reached(cars, state, walls, index):
            return False
        state = (*state[:index], start, *state[index + 1 :])
    return found is not None and state[0] == _EXIT


_EXIT = 4
"""Where A, the first of all cars, is out."""
Places = tuple[int, ...]
"""The cells a car covers, as bits, at each of its places from left to right or from top to bottom."""


def _parked(board: str) -> tuple[dict[str, Places], tuple[int, ...], int]:
    cars: dict[str, Places] = {}
    state = []
    for name in sorted(set(board) - set(".ox")):
        cells = [i for i, mark in enumerate(board) if mark == name]
        stride = cells[1] - cells[0]
        start = cells[0] % 6 if stride == 1 else cells[0] // 6
        first = sum(1 << (cell - start * stride) for cell in cells)
        cars[name] = tuple(first << (place * stride) for place in range(7 - len(cells)))
        state.append(start)
    return cars, tuple(state), sum(1 << i for i, mark in enumerate(board) if mark == "x")


def _reached(cars: Mapping[str, Places], state: tuple[int, ...], walls: int, index: int) -> list[int]:
    """The places that a car can drive to."""
    taken = walls
    for i, places in enumerate(cars.values()):
        taken |= places[state[i]] if i != index else 0
    places, found = list(cars.values())[index], []
    for way in (range(state[index] + 1, len(places)), range(state[index] - 1, -1, -1)):
        for place in way:
            if places[place] & taken:
                break
            found.append(place)
    return found


def solve_rush_hour(board: str, most_states: int = 10_000) -> str | None:
    """The fewest moves that bring AA out; None where more states have to be looked at than that."""
    cars, first, walls = _parked(board)
    before: dict[tuple[int, ...], tuple[tuple[int, ...], str] | None] = {first: None}
    border = deque([first])
    while border and len(before) <= most_states:
        state = border.popleft()
        if state[0] == _EXIT:
            path = []
            while (step := before[state]) is not None:
                state, move = step
                path.append(move)
            return " ".join(reversed(path))
        for index, name in enumerate(cars):
            for place in _reached(cars, state, walls, index):
                after = (*state[:index], place, *state[index + 1 :])
                if after not in before:
                    before[after] = (state, f"{name}{place - state[index]:+d}")
                    border.append(after)
    return None


# ----- a cube, as 54 stickers: the place of each, and the way its face looks

_AXES = {"R": ((1, 0, 0), 1), "L": ((1, 0, 0), -1), "U": ((0, 1, 0), 1), "D": ((0, 1, 0), -1), "F": ((0, 0, 1), 1),
    "B": ((0, 0, 1), -1)}  # fmt: skip
Sticker = tuple[tuple[int, int, int], tuple[int, int, int]]


def rubiks_cube(facts: Facts, answer: str) -> bool:
    """Turns that bring every face of a scrambled cube to one colour."""
    found = moves(answer, "[RLUDFB]['’]?2?|[RLUDFB]2['’]?")
    if found is None:
        return False
    cube = {sticker: sticker[1] for sticker in _stickers()}
    for turn in (*facts["scramble_moves"].split(), *found):
        for _ in range(2 if "2" in turn else 1):
            cube = _turned(cube, turn[0], backwards="'" in turn or "’" in turn)
    return all(len({color for (_, face), color in cube.items() if face == side}) == 1 for side in set(cube.values()))


@cache
def _stickers() -> tuple[Sticker, ...]:
    places = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    faces = [(sign * x, sign * y, sign * z) for (x, y, z), _ in _AXES.values() for sign in (1, -1)]
    return tuple(
        (place, face)
        for place in places
        for face in dict.fromkeys(faces)
        if sum(p * f for p, f in zip(place, face, strict=True)) == 1
    )


def _turned(cube: dict[Sticker, Any], side: str, backwards: bool) -> dict[Sticker, Any]:
    axis, sign = _AXES[side]
    # clockwise, as seen from outside, is against the sense in which angles grow around the outward axis
    quarter = sign if backwards else -sign

    def turn(v: tuple[int, int, int]) -> tuple[int, int, int]:
        x, y, z = v
        if axis == (1, 0, 0):
            return (x, -quarter * z, quarter * y)
        if axis == (0, 1, 0):
            return (quarter * z, y, -quarter * x)
        return (-quarter * y, quarter * x, z)

    moved = {}
    for (place, face), color in cube.items():
        inside = sum(p * a for p, a in zip(place, axis, strict=True)) == sign
        moved[(turn(place), turn(face)) if inside else (place, face)] = color
    return moved


def ladder(facts: Facts, answer: str) -> bool:
    """Words of the list of the package, one letter changed from each to the next."""
    steps = [step.strip().upper() for step in answer.split(",")]
    if len(steps) < 2 or (steps[0], steps[-1]) != (facts["start_word"], facts["end_word"]):
        return False
    if any(len(step) != len(steps[0]) for step in steps):
        return False
    single = all(sum(a != b for a, b in zip(x, y, strict=True)) == 1 for x, y in pairwise(steps))
    return single and _english().issuperset(steps)


@cache
def _english() -> frozenset[str]:
    import csv

    from reasoning_gym.data import get_data_file_path

    with get_data_file_path("words.csv").open(encoding="utf-8") as file:
        return frozenset(word.strip().upper() for row in csv.reader(file) for word in row)


JUDGES: Mapping[str, Judge] = MappingProxyType(
    {
        judge.__name__: judge
        for judge in (
            text, word, letters, number, quantity, unspaced, indexes, near, chance, three_figures, candidate,
                hexadecimal, reduced, factors,
            complex_number, numbers, roots, words, json_value, groups, partitions, cells, duration, measure, roles,
            uses_all, antiderivative, polynomial, cheapest_path, plan, cryptarithm, coloring, jugs, kakurasu, queens,
                palindrome,
            quantum_lock, route, sokoban, latin, sudoku, survo, hanoi, capture, rush_hour, rubiks_cube, ladder,
        )
    }
)  # fmt: skip
