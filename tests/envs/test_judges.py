"""Judges of answers to tasks that a package makes.

1. A comparing judge takes the forms that its prompt asks for, and the markup people put around them, and nothing else.
2. A playing judge takes every answer that the rules allow, and none that breaks one of them.
3. No judge raises, or takes long, whatever the answer.
4. The search for the fewest moves of a rush hour agrees with a search that knows nothing of bits.
"""

from __future__ import annotations

import time
from collections import deque

import pytest

from zaya.envs.audit import hostile_answers
from zaya.envs.judges import JUDGES, LONGEST, bare, solve_rush_hour

SUDOKU = [[1, 0, 3, 4], [3, 4, 0, 2], [2, 1, 4, 0], [0, 3, 2, 1]]
SOLVED = "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1"
JUGS = {"puzzle": {"jug_capacities": [3, 5], "target": 4}}
BUTTONS = {
    "answer": "A → B", "initial_value": 1, "initial_state": "red", "target_value": 6,
    "buttons": [
        {"name": "A", "type": "add", "value": 2, "active_state": "any"},
        {"name": "B", "type": "multiply", "value": 2, "active_state": "green"},
        {"name": "C", "type": "subtract", "value": 1, "active_state": "red"},
    ],
}  # fmt: skip
GRID = {"answer": "right right", "matrix": [["*", "O", "#"], ["O", "X", "O"]]}
SOKOBAN = {"answer": "R", "gamestr": "+ + + + +\n+ * @ X +\n+ - - - +\n+ + + + +"}
BOARD = "oooBoo" + "oooBoo" + "AAoBoo" + "oooooo" + "oooooo" + "oooooo"
PLAN = {
    "actions": [
        {"call": "a()", "pre_true": ["p"], "pre_false": [], "add": ["q"], "delete": ["p"]},
        {"call": "b()", "pre_true": ["q"], "pre_false": ["p"], "add": ["r"], "delete": []},
    ],
    "initial_true": ["p"], "goal_true": ["r"], "goal_false": ["p"], "plan_cue": {"length": 2, "steps": []},
}  # fmt: skip
PATH = {"edges": [[0, 1, 1], [1, 2, 1], [0, 2, 5], [0, 3, 1], [3, 2, 1]], "start_node": 0, "end_node": 2,
    "optimal_cost": 2, "graph_description": "0->1"}  # fmt: skip
GO = {"board": [["X", "O", "."], [".", "X", "."], [".", ".", "."]]}
SURVO = {"puzzle": [[0, 2, 3], [3, 0, 7], [4, 6, 10]], "candidate_numbers": [1, 4]}
LATIN = {"answer": "1 < 2\n\n2   1", "solution": [[1, 2], [2, 1]]}
HANOI = {"num_disks": 2, "num_pegs": 3, "start_peg": 1, "target_peg": 3}
MOVES = "Move disk 1 from Peg 1 to Peg 2\nMove disk 2 from Peg 1 to Peg 3\nMove disk 1 from Peg 2 to Peg 3"


def answer(text: str, **more: object) -> dict[str, object]:
    return {"answer": text, **more}


RIGHT_AND_WRONG = {
    "text": (answer("a b\nc"), ["a b\nc", "a  b \n\nc"], ["a b c", "A b\nc", "a b\nc d"]),
    "word": (answer("Tuesday"), ["tuesday", "Tuesday."], ["Tuesday or Monday", "not Tuesday", "Tues"]),
    "letters": (answer("FAUNA"), ["f a u n a", "Fauna"], ["faun", "faunas"]),
    "number": (answer("1234"), ["1234", "1,234", "1234.0", "+1234"], ["12,34", "1234 or 1", "1e99999", "NaN", "1235"]),
    "quantity": (answer("1/2"), ["0.5", "2/4", "\\frac{1}{2}"], ["1/0", "0.51", "x"]),
    "near": (answer("4.8609", tolerance=0.001), ["4.861", "4.8609"], ["4.87", "inf"]),
    "chance": (answer("0.234375"), ["15/64", "0.23438", "0.234375"], ["0", "0.23", "1", "15/0"]),
    "three_figures": (answer("1.7574e-22"), ["1.76e-22", "1.757e-22"], ["1.75e-22", "1.76e-21", "0"]),
    "candidate": (answer("2", candidates=[1.5, 2.0, 2.5], solution=2.0), ["2", "2.00"], ["1.5", "2.5", "2.2",
        "1.5 2 2.5"]),
    "hexadecimal": (answer("-0x3d"), ["-0x3d", "-0X3D"], ["0x3d", "-61", "-0x3d or 1"]),
    "reduced": (answer("$\\frac{2}{3}$"), ["2/3", "\\frac{2}{3}", "2 / 3"], ["4/6", "2/3 4/6", "0.667", "2"]),
    "factors": (answer("2 × 2 × 3"), ["2 × 2 × 3", "3*2*2", "2 x 3 x 2"], ["12", "2 × 6", "2 × 2 × 3 × 1", "2 2 3"]),
    "complex_number": (answer("8.0 - 3.0i"), ["8 - 3i", "8.0-3.0i", "8.001 - 3i"], ["8", "-3i", "8 + 3i", "8.1 - 3i"]),
    "numbers": (answer("['1.50', '2']"), ["[1.5, 2]", "1.5, 2.0", "['1.50', '2']"], ["[2, 1.5]", "[1.5]", "[1.5, 2",
        "[1.5, x]"]),
    "roots": (answer("-0.7757, 1.9717"), ["1.9717, -0.7757", "-0.77569, 1.97171"], ["1.9717", "1.9717, 1.9717",
        "-0.7757, 1.9717, 0"]),
    "words": (answer("b, a"), ["b, a", "b,a"], ["a, b", "b a", "b, a, c"]),
    "json_value": (answer("[[0,1]]"), ["[[0, 1]]"], ["[[0, true]]", "[[0, 1.0]]", "[0, 1]", "[[1, 0]]", "[[0,1"]),
    "groups": (answer('[["a", "b"], ["c"]]'), ['[["c"], ["b", "a"]]'], ['[["a"], ["b", "c"]]', '["a", "b", "c"]',
        "[[1]]"]),
    "partitions": (answer('[["a", "a"], ["aa"]]'), ['[["aa"], ["a", "a"]]'], ['[["aa"]]',
        '[["aa"], ["aa"], ["a", "a"]]']),
    "cells": (answer("1 2\n3 4"), ["1 2\n3 4", "[[1, 2], [3, 4]]"], ["1 2 3 4", "1 2\n3 5", "1 2\n3 4\n5 6"]),
    "duration": (answer("2 days, 01:05"), ["2 days, 01:05", "2 days 1:05"], ["1:05", "2", "2 days", "2 days, 01:06"]),
    "measure": (answer("(7.765, -7.882)"), ["(7.765, -7.882)", "7.77, -7.88"], ["7.765", "(7.765, 7.882)",
        "(7.765, -7.882, 0)"]),
    "roles": (answer("Al is a devil, and Bo is an angel."), ["Bo is an angel and Al is a devil"],
        ["Al is a devil, Al is an angel, Bo is an angel", "Al is a devil"]),
    "indexes": (answer("0 2", valid_supports=[[0, 2], [1]]), ["2 0", "0, 2", "1"], ["0 1 2", "0 2 2", "0", "all"]),
    "unspaced": (answer("[0, -6]"), ["[0,-6]"], ["[0, 6]", "[0, -6] or [1]"]),
    "uses_all": ({"numbers": [4, 8, 6, 2]}, ["4*8 - 6 - 2"], ["24", "4*6", "8*3", "4*8-6-2-0", "4*8 - 6 - 2 = 24",
        "8+8+8+0"]),
    "antiderivative": ({"integrand": "2*x"}, ["x**2 + C", "x^2", "x**2 - 5"], ["x**2 + C*x", "2*x", "__import__('os')",
        "x**3"]),
    "polynomial": (answer("2*x**2 + 3*x + 1"), ["2*x**2+3*x+1", "1 + 3*x + 2*x^2", "x + 2*x + 2*x**2 + 1"],
        ["(2*x+1)*(x+1)", "2*x**2", "3x + 1"]),
    "cryptarithm": ({"words_letters": ["A", "B"], "result_letters": "C"}, ["A=1,B=2,C=3", "A=2, B=5, C=7"],
        ["A=1,B=1,C=2", "A=0,B=1,C=1", "A=1,B=2", "A=1,B=2,C=4"]),
    "coloring": ({"puzzle": {"vertices": [0, 1], "edges": [[0, 1]], "color_options": [1, 2]}}, ['{"0": 1, "1": 2}',
        '{"1": 1, "0": 2}'], ['{"0": 1, "1": 1}', '{"0": 1}', '{"0": 3, "1": 1}', '{"0": true, "1": 2}']),
    "jugs": (JUGS, ['["fill B", "pour B->A", "empty A", "pour B->A", "fill B", "pour B->A"]'], ['["fill B"]', "[]",
        '["pour B->B"]', '["fill C"]', "fill B"]),
    "kakurasu": ({"row_sums": [1, 2], "col_sums": [1, 2]}, ["1 0\n0 1"], ["1 1\n0 0", "1 0", "1 0\n0 2"]),
    "queens": ({"puzzle": [["_", "Q", "_", "_"]] + [["_"] * 4] * 3}, ["_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ Q _"],
        ["_ _ Q _\nQ _ _ _\n_ _ _ Q\n_ Q _ _", "_ Q _ _\n_ _ _ Q\nQ _ _ _\n_ _ _ _"]),
    "palindrome": ({"letters": ["a", "b", "a"]}, ["aba", "ABA"], ["aab", "a", "abba"]),
    "quantum_lock": (BUTTONS, ["A → B", "A, B", "a b"], ["A → A → A → A", "B", "A → B → C", "either A → B or not",
        "Z → B"]),
    "route": (GRID, ["right right", "right, right"], ["right", "down right right up", "left right", "infeasible",
        "down right"]),
    "sokoban": (SOKOBAN, ["R", "LR", "LUR"], ["", "D", "RDx", "r", "L R", "L" * 20 + "R"]),
    "latin": (LATIN, ["1 2\n2 1", "1 < 2\n\n2   1"], ["2 1\n1 2", "1 2", "1 2\n2 1 or"]),
    "sudoku": ({"puzzle": SUDOKU}, [SOLVED], [SOLVED.replace("1 2 3 4", "1 3 2 4"), "1 2 3 4",
        "2 1 3 4\n3 4 1 2\n1 2 4 3\n4 3 2 1"]),
    "survo": (SURVO, ["1 2 3\n3 4 7\n4 6 10"], ["4 2 3\n3 1 7\n4 6 10", "1 2 3\n3 4 7"]),
    "hanoi": (HANOI, [MOVES, "Move disk 1 from Peg 1 to Peg 3\nMove disk 1 from Peg 3 to Peg 1\n" + MOVES],
        ["Move disk 2 from Peg 1 to Peg 3", "Move disk 1 from Peg 1 to Peg 3\nMove disk 2 from Peg 1 to Peg 3",
        MOVES + "\nor"]),
    "capture": (GO, ["C3", "c3"], ["B1", "A3", "C4", "Z9", "C3 or A1"]),
    "rush_hour": ({"board_config": BOARD}, ["B+3 A+4", "B+1 B+2 A+2 A+2"], ["A+4", "B+4 A+4", "B+3 A+5", "C+1", "B+3"]),
    "rubiks_cube": ({"scramble_moves": "R U'"}, ["U R'", "U R R R", "U U U U U R'"], ["R' U", "U", "U R2", "x U R'",
        "U R' or"]),
    "cheapest_path": (PATH, ["0 1 2", "0 3 2", "0 -> 1 -> 2"], ["0 2", "2 1 0", "1 2", "None", "0 1 2 or"]),
    "plan": (PLAN, ["a()\nb()"], ["b()\na()", "a()", "a()\nb()\nb()", "a() b()"]),
}  # fmt: skip


@pytest.mark.parametrize("judge", RIGHT_AND_WRONG)
def test_right_and_wrong(judge: str) -> None:
    facts, right, wrong = RIGHT_AND_WRONG[judge]
    assert [text for text in right if not JUDGES[judge](facts, bare(text))] == []
    assert [text for text in wrong if JUDGES[judge](facts, bare(text))] == []


def test_every_judge_is_tested_here() -> None:
    assert set(JUDGES) - set(RIGHT_AND_WRONG) == {"ladder"}, "the words are the package's: see test_reasoning_gym"


@pytest.mark.parametrize(
    "text", ["$42$", "\\text{42}", "**42**", "`42`", "```\n42\n```", "```text\n42\n```", " 42 ", "\\(42\\)", "$$42$$"]
)
def test_markup_around_an_answer(text: str) -> None:
    assert bare(text) == "42"


@pytest.mark.parametrize("text", ["$1$ or $2$", "`1` `2`", "\\text{1} or \\text{2}", "**1** and **2**"])
def test_markup_around_parts_stays(text: str) -> None:
    assert bare(text) == text


@pytest.mark.parametrize("judge", RIGHT_AND_WRONG)
def test_nothing_breaks_a_judge(judge: str) -> None:
    facts = RIGHT_AND_WRONG[judge][0]
    start = time.monotonic()
    for text in hostile_answers():
        JUDGES[judge](facts, bare(text[:LONGEST]))
    assert time.monotonic() - start < 60


def test_a_rush_hour_is_solved_in_the_fewest_moves() -> None:
    for board in (
        BOARD,
        "BBoCoooooCooAAoCoooDDDooooooooooooEE",
        "oooooBoooooBAAoCoBoooCDDoooooooooooo",
        "oxoBoo" + "ooCBoo" + "AACBoo" + "ooCooo" + "oooDDo" + "oooooo",
    ):
        fewest = _fewest(board)
        found = solve_rush_hour(board)
        assert found is not None
        assert len(found.split()) == fewest
        assert JUDGES["rush_hour"]({"board_config": board}, found)


def _fewest(board: str) -> int:
    """By boards, as text."""
    seen, border = {board}, deque([(board, 0)])
    while border:
        now, depth = border.popleft()
        if now[16:18] == "AA":
            return depth
        for car in sorted(set(now) - set("ox")):
            cells = [i for i, mark in enumerate(now) if mark == car]
            stride = cells[1] - cells[0]
            for way in (stride, -stride):
                moved, at = now, cells
                while True:
                    at = [cell + way for cell in at]
                    fits = all(0 <= c < 36 and (stride == 6 or c // 6 == cells[0] // 6) for c in at)
                    if not fits or any(moved[c] not in (car, "o") for c in at):
                        break
                    moved = "".join(car if i in at else "o" if mark == car else mark for i, mark in enumerate(moved))
                    if moved not in seen:
                        seen.add(moved)
                        border.append((moved, depth + 1))
    raise AssertionError("it has no solution")
