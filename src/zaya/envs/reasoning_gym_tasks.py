"""The datasets of reasoning-gym 0.1.25: which are offered, how they get harder and who judges them; and which are not.

Each has axes, the settings that make it harder, each with its values from easy to hard. Level 0 takes the first of
every axis; a level more takes the next value of one of them, in turn, as long as any has one. The settings are mostly
those of the curricula of the package; the values are ours, as its first level is often harder than its defaults, and
its next ten times that.

An answer that comes up too often, as -1 where there is no solution, is thinned: of problems that have it only a share
is kept, and another is drawn for the rest, so that no constant answer pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from zaya.envs.judged import Task

Axis = tuple[Mapping[str, Any], ...]
"""Settings at each of its steps, the easiest first."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """One dataset, with what makes it harder."""

    task: Task
    axes: tuple[Axis, ...]
    fixed: Mapping[str, Any]
    """Settings at every level, where the defaults of the package are not wanted."""

    def settings(self, level: int) -> dict[str, Any]:
        """What the dataset is made with at a level."""
        at = [0] * len(self.axes)
        for _ in range(level):
            # in turn: the axis that has been raised least, the first of them
            open_axes = [i for i, axis in enumerate(self.axes) if at[i] < len(axis) - 1]
            at[min(open_axes, key=lambda i: at[i])] += 1
        chosen = dict(self.fixed)
        for axis, index in zip(self.axes, at, strict=True):
            chosen.update(axis[index])
        return chosen


def offered(axes: tuple[Axis, ...] = (), fixed: Mapping[str, Any] | None = None, **about: Any) -> Dataset:
    """A dataset that ends where all its axes do."""
    return Dataset(Task(highest=sum(len(axis) - 1 for axis in axes), **about), axes, fixed or {})


def each(name: str, *values: Any) -> Axis:
    """Settings, one or several of the same value, that take these values."""
    return tuple(dict.fromkeys(name.split(), value) for value in values)


def spans(name: str, *ends: int | float | tuple[Any, Any]) -> Axis:
    """`min_name` and `max_name`, for several names alike. One number is both ends."""
    pairs = [end if isinstance(end, tuple) else (end, end) for end in ends]
    return tuple(
        {f"{side}_{one}": value for one in name.split() for side, value in zip(("min", "max"), pair, strict=True)}
        for pair in pairs
    )


def around(name: str, *largest: int) -> Axis:
    """`min_name` and `max_name`, for several names alike, from minus to plus a number."""
    return spans(name, *((-end, end) for end in largest))


_INTEGRALS = ("linear", "radical", "log_inverse_trig", "trigonometric", "polynomial_exp_trig", "exponential", "cyclic",
    "repeated_parts")  # fmt: skip
_CALENDAR = ("weekday_of_date", "count_days", "weekday_offset", "weekday_of_date_from_first_date",
    "count_business_days", "recurring_event_day", "is_leap_year")  # fmt: skip


def _first(count: int, of: int) -> list[float]:
    """Weights that take the first few of several kinds."""
    return [1 / count] * count + [0.0] * (of - count)


TASKS: Mapping[str, Dataset] = MappingProxyType({
    # algebra
    "complex_arithmetic": offered(category="algebra", judge="complex_number", axes=(
        around("real imag", 5, 10, 20, 50, 100, 1000),
        each("operations_weights", [0.5, 0.5, 0, 0], [0.4, 0.4, 0.2, 0], [0.3, 0.3, 0.3, 0.1], [0.25, 0.25, 0.25,
            0.25]))),
    "intermediate_integration": offered(category="algebra", judge="antiderivative", facts=("integrand",), axes=(
        each("problem_type_weights", *(_first(count, 8) for count in range(1, 9))),),
            fixed={"problem_types": _INTEGRALS}),
    "polynomial_equations": offered(category="algebra", judge="roots", axes=(
        spans("degree", 1, (1, 2), 2, (2, 3), 3), each("max_value", 10, 20, 50, 100), spans("terms", 2, (2, 3), 3, (3,
            4))), keep={"0.0": 0.1}),
    "polynomial_multiplication": offered(category="algebra", judge="polynomial", axes=(
        each("max_value", 9, 20, 50, 100), spans("degree", (0, 1), (0, 2), (0, 3), (0, 4)), spans("terms", 2, (2, 3),
            3, 4),
        spans("polynomials", 2, (2, 3), 3)), fixed={"variables": ("x",)}, copies=0.0),
    "simple_equations": offered(category="algebra", judge="number", axes=(
        each("max_value", 10, 30, 100, 300, 1000, 10_000), spans("terms", 2, 3, 4, 5, (6, 7), (8, 10)))),
    "simple_integration": offered(category="algebra", judge="antiderivative", facts=("integrand",), axes=(
        spans("terms", 1, 2, 3, 4, 5), each("max_degree", 3, 5, 7, 10)), fixed={"symbols": ("x",)}),
    # algorithms
    "ab": offered(category="algorithms", judge="text", axes=(each("length", 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40),)),
    "base_conversion": offered(category="algorithms", judge="word", axes=(
        spans("value", (10, 50), (50, 200), (200, 1000), (1000, 10_000), (10_000, 100_000), (100_000, 10**7)),
        spans("base", (2, 6), (2, 10), (2, 16), (2, 24), (2, 36)))),
    "binary_alternation": offered(category="algorithms", judge="number", axes=(
        spans("n", (10, 20), (16, 30), (24, 44), (36, 64), (50, 90), (80, 140)),), keep={"-1": 0.5}),
    "binary_matrix": offered(category="algorithms", judge="cells", axes=(
        spans("n", 3, 4, 5, 6, 7, 8, 10, 12, 15), each("p_zero", 0.4, 0.3, 0.2, 0.12))),
    "caesar_cipher": offered(category="algorithms", judge="word", axes=(
        spans("words", (2, 3), (4, 6), (7, 10), (11, 15), (16, 25)), spans("rotation", (1, 3), (1, 6), (1, 12), (1,
            25)))),
    "count_primes": offered(category="algorithms", judge="number", axes=(
        spans("n", (1, 60), (1, 100), (1, 200), (1, 500), (1, 1000), (1, 2000), (1, 5000), (1, 10_000)),)),
    "cryptarithm": offered(category="algorithms", judge="cryptarithm", facts=("words_letters", "result_letters"), axes=(
        spans("words", 2, (2, 3), 3, (3, 4), 4, 5, 6),)),
    "game_of_life": offered(category="algorithms", judge="json_value", axes=(
        tuple({"grid_size_x": n, "grid_size_y": n, "filled_cells": n * n // 2} for n in (4, 5, 6, 7, 8, 10, 12)),
        each("simulation_steps", 1, 2, 3, 4, 5))),
    "game_of_life_halting": offered(category="algorithms", judge="word", choices=2, axes=(
        tuple({"difficulty": kind, "grid_size_x": n, "grid_size_y": n} for kind, n in ((1, 10), (1, 12), (2, 14), (2,
            18), (3, 26))),
        each("num_oscillators", 3, 4, 5, 6))),
    "graph_color": offered(category="algorithms", judge="coloring", facts=("puzzle",), axes=(
        spans("num_vertices", 7, 8, 9, 10, 12, 14, 16, 20, 25), each("num_colors", 4, 3)),
        fixed={"edge_probability": 0.5}),
    "group_anagrams": offered(category="algorithms", judge="groups", axes=(
        spans("anagram_groups", 2, 3, 4, (5, 6), (7, 8), (9, 10), (11, 15)), spans("words_per_group", 2, (2, 3), (2,
            4), (2, 5)))),
    "isomorphic_strings": offered(category="algorithms", judge="word", choices=2, keep={"True": 0.8}, axes=(
        spans("string_length", (3, 5), (6, 8), (9, 12), (13, 18), (19, 30), (31, 50), (51, 100)),)),
    "jugs": offered(category="algorithms", judge="jugs", facts=("puzzle",), axes=(
        each("difficulty", 3, 4, 5, 6, 7, 8, 9, 10),)),
    "letter_counting": offered(category="algorithms", judge="number", axes=(
        spans("words", (8, 12), (13, 18), (19, 25), (26, 35), (36, 50), (51, 80)),), keep={"0": 0.5, "1": 0.35}),
    "letter_jumble": offered(category="algorithms", judge="word", copies=0.0, axes=(
        spans("words", (2, 3), (4, 5), (6, 8), (9, 12), (13, 20)), spans("corruption_level", (0.1, 0.3), (0.3, 0.5),
            (0.5, 0.7), (0.7, 0.9)),
        each("max_word_len", 6, 9, 12, 20))),
    "manipulate_matrix": offered(category="algorithms", judge="cells", axes=(
        spans("rows cols", (2, 3), (3, 4), (4, 5), (5, 6), (6, 8), (8, 10)), spans("transforms", 1, 2, 3, 4, (5, 6),
            (7, 8), (9, 10)))),
    "number_filtering": offered(category="algorithms", judge="numbers", keep={"[]": 0.1}, axes=(
        spans("numbers", (4, 5), (6, 7), (8, 10), (11, 15), (16, 25), (26, 40)), spans("decimals", 0, (0, 1), (0, 2),
            (0, 3), (0, 4)))),
    "number_sorting": offered(category="algorithms", judge="numbers", axes=(
        spans("numbers", (3, 4), (5, 6), (7, 8), (9, 12), (13, 18), (19, 30), (31, 50)), spans("decimals", 0, (0, 1),
            (0, 2), (0, 3), (0, 4)))),
    "palindrome_generation": offered(category="algorithms", judge="palindrome", facts=("letters",), axes=(
        spans("length", (4, 5), (6, 7), (8, 9), (10, 12), (13, 16), (17, 24), (25, 40)),)),
    "palindrome_partitioning": offered(category="algorithms", judge="partitions", axes=(
        spans("string_len", (3, 4), (5, 6), (7, 8), (9, 10), (11, 12)), each("max_substring_palindrome_len", 2, 3, 4,
            5))),
    "pool_matrix": offered(category="algorithms", judge="cells", tolerance=0.0101, axes=(
        spans("rows cols", (3, 4), (4, 5), (5, 6), (6, 8), (8, 10), (10, 14)), spans("pool_size", 2, (2, 3), (2, 4)))),
    "ransom_note": offered(category="algorithms", judge="word", choices=2, axes=tuple([tuple(
        {**spans("note_length", note)[0], **spans("magazine_length", magazine)[0]} for note, magazine in (
            ((2, 4), (6, 10)), ((4, 7), (12, 20)), ((7, 10), (20, 30)), ((10, 15), (30, 45)), ((15, 25), (45, 70)),
            ((25, 40), (70, 110)), ((40, 80), (110, 200))))])),
    "rotate_matrix": offered(category="algorithms", judge="cells", axes=(
        spans("n", 2, 3, 4, 5, 6, 7, (8, 9), (10, 12)), spans("rotations", 1, (1, 2), (1, 3), (4, 7), (8, 15)))),
    "rotten_oranges": offered(category="algorithms", judge="number", keep={"-1": 0.04}, axes=(
        spans("n", (5, 6), (7, 8), (9, 10), (11, 13), (14, 17), (18, 22), (23, 30)),), fixed={"p_oranges": 0.8}),
    "spell_backward": offered(category="algorithms", judge="word", axes=(spans("word_len", 3, 4, 5, 6, 7, 8, 9, 10),)),
    "spiral_matrix": offered(category="algorithms", judge="cells", axes=(spans("n", 2, 3, 4, 5, 6, 7, 8, (9, 10), (11,
        13)),)),
    "string_insertion": offered(category="algorithms", judge="text", copies=0.1, axes=(
        spans("string_length", (8, 12), (13, 18), (19, 25), (26, 35), (36, 50), (51, 80), (81, 120)),)),
    "string_manipulation": offered(category="algorithms", judge="text", copies=0.2, axes=(
        spans("string_length", (5, 6), (7, 9), (10, 13), (14, 20), (21, 30)), spans("num_rules", 3, (3, 4), (5, 6), (7,
            9), (10, 14)))),
    "string_splitting": offered(category="algorithms", judge="cells", axes=(
        spans("initial_machines", (1, 3), (2, 5), (4, 8), (7, 12), (10, 20), (20, 40)),)),
    "string_synthesis": offered(category="algorithms", judge="cells", axes=(
        spans("initial_blocks", (1, 3), (2, 5), (4, 8), (7, 12), (10, 20), (20, 40)),)),
    "word_ladder": offered(category="algorithms", judge="ladder", facts=("start_word", "end_word"), axes=(
        spans("chain_length", 3, 4, 5, 6, 7), spans("word_length", 3, 4, 5))),
    "word_sequence_reversal": offered(category="algorithms", judge="words", axes=(
        spans("words", (3, 4), (5, 6), (7, 9), (10, 13), (14, 20), (21, 30), (31, 50)),)),
    "word_sorting": offered(category="algorithms", judge="words", axes=(
        spans("words", (3, 4), (5, 6), (7, 9), (10, 13), (14, 20), (21, 30), (31, 50)),)),
    # ARC
    "arc_1d": offered(category="induction", judge="cells", axes=(spans("size", (8, 12), (12, 18), (18, 25), (25, 35),
        (35, 50)),)),
    "arc_agi": offered(category="induction", judge="cells"),
    "rearc": offered(category="induction", judge="cells", license="Apache-2.0 AND MIT", axes=(
        each("rng_difficulty_weights", *(_first(count, 7) for count in range(1, 5))),
        each("pso_difficulty_weights", *(_first(count, 7) for count in range(1, 5))))),
    # arithmetic
    "basic_arithmetic": offered(category="arithmetic", judge="number", axes=(
        spans("terms", 2, 3, 4, 5, 6, 7, 8), spans("digits", 1, (1, 2), 2, (2, 3), 3, (3, 4), 4)),
            fixed={"operators": ("+", "-", "*")}),
    "bitwise_arithmetic": offered(category="arithmetic", judge="hexadecimal", axes=(each("difficulty", *range(1,
        11)),)),
    "calendar_arithmetic": offered(category="arithmetic", judge="word", axes=(
        each("tasks", *([*_CALENDAR[:count]] for count in range(2, 8))), each("offset_upper_bound", 15, 30, 60, 100,
            200, 365))),
    "chain_sum": offered(category="arithmetic", judge="number", axes=(
        spans("digits", 1, (1, 2), 2, 3, 4, 5, 6), spans("terms", 2, 3, 4, 5, 6, 8, 10))),
    "count_bits": offered(category="arithmetic", judge="number", axes=(
        spans("n", *((1 << low, 1 << high) for low, high in ((8, 12), (12, 16), (16, 20), (20, 24), (24, 28), (28,
            31)))),)),
    "decimal_arithmetic": offered(category="arithmetic", judge="near", tolerance=0.001, axes=(
        spans("terms", 2, 3, 4, 5, 6), spans("num_decimal_places", 1, 2, 3)), fixed={"precision": 10}),
    "decimal_chain_sum": offered(category="arithmetic", judge="number", axes=(
        spans("digits", 1, 2, 3, 4, 5), spans("terms", 2, 3, 4, 5, 6, 8), spans("decimal_places", 1, (1, 2), (1, 3),
            (2, 4)))),
    "dice": offered(category="arithmetic", judge="reduced", axes=(
        each("num_dice", 2, 3, 4, 5, 6), each("max_dice_size", 8, 12, 16, 20, 24))),
    "fraction_simplification": offered(category="arithmetic", judge="reduced", axes=(
        spans("value", (2, 12), (10, 30), (20, 100), (50, 300), (100, 1000)), spans("factor", (2, 5), (4, 12), (10,
            30), (20, 100)))),
    "gcd": offered(category="arithmetic", judge="number", keep={"1": 0.15, "2": 0.3}, axes=(
        spans("value", (4, 50), (10, 100), (50, 300), (100, 1000), (500, 5000), (1000, 10_000)), spans("numbers", 2,
            (2, 3), 3))),
    "gsm_symbolic": offered(category="arithmetic", judge="number"),
    "lcm": offered(category="arithmetic", judge="number", axes=(
        spans("value", (2, 20), (5, 50), (10, 100), (50, 300), (100, 1000)), spans("numbers", 2, (2, 3), 3, 4))),
    "leg_counting": offered(category="arithmetic", judge="number", axes=(
        spans("animals", 2, 3, 4, (5, 6), (7, 8), (9, 12), (13, 18)), spans("instances", (1, 5), (1, 9), (1, 15), (5,
            30), (10, 100)))),
    "number_format": offered(category="arithmetic", judge="candidate", facts=("candidates", "solution"), axes=(
        spans("num_candidates", 3, 4, 5, (6, 7), (8, 10), (11, 15), (16, 25)), each("max_n", 10_000, 10**6, 10**8,
            10**9))),
    "power_function": offered(category="arithmetic", judge="three_figures", axes=(
        around("base", 20, 50, 100, 1000), spans("exponent", 2, (2, 3), (2, 4), (3, 6), (4, 8), (6, 10)))),
    "prime_factorization": offered(category="arithmetic", judge="factors", axes=(
        spans("value", (6, 60), (20, 100), (50, 200), (100, 500), (200, 1000), (500, 3000), (1000, 10_000)),)),
    "products": offered(category="arithmetic", judge="number", axes=(
        spans("digits", (1, 2), 2, (2, 3), 3, (3, 4), 4, 5), spans("terms", 2, (2, 3), 3, 4))),
    "time_intervals": offered(category="arithmetic", judge="duration", axes=(
        each("max_time_difference_seconds", 3600, 10_800, 21_600, 43_200, 86_400), each("max_date_difference_days", 20,
            60, 180, 730, 3650))),
    # code
    "bf": offered(category="code", judge="text", license="Apache-2.0 AND MIT", axes=(each("difficulty", 1, 2),)),
    # perception
    "color_cube_rotation": offered(category="perception", judge="word", axes=(
        spans("rotations", 1, 2, 3, (4, 5), (6, 8), (9, 12), (13, 20), (21, 40)),)),
    "figlet_font": offered(category="perception", judge="letters", axes=(spans("word_len", 3, 4, 5, 6, 7, 8),)),
    "modulo_grid": offered(category="perception", judge="text", axes=(
        each("size_x size_y", 8, 10, 12, 15, 20, 25, 30), each("max_divisor max_target", 5, 8, 12, 20),
            each("max_holes", 1, 2, 4, 6, 9, 12))),
    "needle_haystack": offered(category="perception", judge="word", axes=(
        spans("num_statements", (5, 8), (9, 15), (16, 25), (26, 40), (41, 60), (61, 90), (91, 120)),)),
    "number_sequence": offered(category="perception", judge="number", axes=(
        each("max_complexity", 1, 2, 3, 4, 5), around("value", 20, 50, 100, 200)), fixed={"min_terms": 5,
            "max_terms": 8}),
    "rectangle_count": offered(category="perception", judge="number", axes=(
        each("max_rectangles", 5, 6, 8, 10, 12, 15), each("width height", 24, 30, 36, 44, 54))),
    "rubiks_cube": offered(category="puzzles", judge="rubiks_cube", facts=("scramble_moves",), axes=(
        spans("scramble_steps", 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20),)),
    # games
    "countdown": offered(category="games", judge="uses_all", facts=("numbers", "target"), axes=(
        spans("numbers", 3, 4, 5, 6, 7), spans("value", (1, 10), (1, 25), (1, 50), (1, 100)), spans("target", (10, 50),
            (50, 200), (100, 999)))),
    "emoji_mystery": offered(category="games", judge="text", axes=(
        spans("words_in_sentence", (3, 5), (6, 8), (9, 12), (13, 17), (18, 25), (26, 35)),)),
    "futoshiki": offered(category="games", judge="latin", facts=("solution",), axes=(
        spans("difficulty", 0, 1, 2, 3), spans("board_size", 4, 5, 6))),
    "kakurasu": offered(category="games", judge="kakurasu", facts=("row_sums", "col_sums"), axes=(
        spans("rows cols", 4, (4, 5), 5, 6, 7), each("p_ones", 0.3, 0.4, 0.5))),
    "mahjong_puzzle": offered(category="games", judge="word", choices=3, axes=(
        spans("num_rounds", (3, 5), (6, 9), (10, 15), (16, 25), (26, 40), (41, 70)),), keep={"Pass": 0.6,
            "Peng": 0.85}),
    "maze": offered(category="games", judge="number", axes=(
        spans("grid_size", (9, 10), (11, 13), (14, 17), (18, 22)),), fixed={"min_dist": 2, "max_dist": 40}),
    "mini_sudoku": offered(category="games", judge="sudoku", facts=("puzzle",), axes=(spans("empty", 4, 5, 6, 7, 8, 9,
        10, 11, 12),)),
    "n_queens": offered(category="games", judge="queens", facts=("puzzle",), axes=(
        each("n", 7, 8, 9, 10), spans("remove", 2, 3, 4, 5, 6))),
    "puzzle24": offered(category="games", judge="uses_all", facts=("numbers",), axes=(each("max_value", 6, 7, 8, 9,
        10),)),
    "rush_hour": offered(category="games", judge="rush_hour", facts=("board_config",), axes=(
        spans("moves", (1, 6), (7, 9), (10, 12), (13, 15), (16, 18)),), license="Apache-2.0"),
    "sokoban": offered(category="games", judge="sokoban", facts=("gamestr",), license="Apache-2.0 AND MIT", axes=(
        spans("boxes", 1, (1, 2), 2, (2, 3), 3, 4), spans("w h", 6, (6, 7), 7, 8), each("max_depth", 20, 30, 40, 60,
            80))),
    "sudoku": offered(category="games", judge="sudoku", facts=("puzzle",), axes=(
        spans("empty", 5, 10, 15, 20, 25, 30, 35, 40, 45, 50),)),
    "survo": offered(category="games", judge="survo", facts=("puzzle", "candidate_numbers"), axes=(
        spans("empty", 3, 4, 5, 6, 7, 9), spans("board_size", 4, (4, 5), 5, 6))),
    "tower_of_hanoi": offered(category="games", judge="hanoi", facts=("num_disks", "num_pegs", "start_peg",
        "target_peg"), axes=(
        spans("disks", (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)),), fixed={"min_pegs": 3, "max_pegs": 4}),
    "tsumego": offered(category="games", judge="capture", facts=("board",), axes=(
        spans("board_size", 5, 6, 7, 8, 9, 11, 13), each("max_stones", 8, 10, 12, 15))),
    # geometry
    "advanced_geometry": offered(category="geometry", judge="measure", axes=(around("coord", 5, 10, 20, 50, 100,
        500),)),
    "simple_geometry": offered(category="geometry", judge="number", axes=(spans("sides", 3, 4, 5, 6, 7, 8, (9, 10),
        (11, 13), (14, 18)),)),
    # graphs
    "course_schedule": offered(category="graphs", judge="word", choices=2, axes=(
        spans("num_courses", (4, 5), (6, 8), (9, 12), (13, 18), (19, 30), (31, 50)), spans("cycle_length", (3, 3), (3,
            4), (3, 5)))),
    "family_relationships": offered(category="graphs", judge="word", axes=(spans("family_size", (5, 6), (6, 7), (7, 8),
        (8, 9), (9, 10), (10, 11)),)),
    "largest_island": offered(category="graphs", judge="number", axes=(
        spans("rows cols", (5, 6), (7, 8), (9, 10), (11, 13), (14, 17), (18, 22)), spans("num_islands", (2, 4), (3, 6),
            (5, 9), (8, 14))),
        fixed={"min_island_size": 3}),
    "path_star": offered(category="graphs", judge="text", axes=(
        each("degree", 2, 3, 4, 5, 6), spans("path_length", 3, 4, 5, 6, 7), each("node_range", 100, 1000, 10_000,
            100_000))),
    "quantum_lock": offered(category="graphs", judge="quantum_lock", axes=(each("difficulty", *range(1, 11)),),
        facts=("buttons", "initial_value", "initial_state", "target_value")),
    "shortest_path": offered(category="graphs", judge="route", facts=("matrix",), axes=(
        spans("rows cols", (5, 6), (6, 7), (7, 8), (8, 10), (10, 12), (12, 15), (15, 20)),),
        fixed={"p_blocked": 0.3}, keep={"infeasible": 0.3, "left": 0.2, "right": 0.2, "up": 0.2, "down": 0.2}),
    # induction
    "acre": offered(category="induction", judge="word", choices=3),
    "list_functions": offered(category="induction", judge="json_value"),
    # logic
    "aiw": offered(category="logic", judge="number", axes=(
        each("task_type_weights", [1.0, 0.0, 0.0], [0.7, 0.3, 0.0], [0.5, 0.3, 0.2], [0.3, 0.4, 0.3], [0.1, 0.45,
            0.45]),
        each("max_entities", 8, 10, 12, 14, 16, 20))),
    "circuit_logic": offered(category="logic", judge="number", choices=2, keep={"0": 0.5}, axes=(
        spans("terms", (2, 3), (3, 4), (4, 5), (5, 6)), spans("inputs", (2, 3), (3, 4), (4, 5), (5, 6)))),
    "knights_knaves": offered(category="logic", judge="roles", axes=(
        each("n_people", 2, 3, 4, 5, 6), each("depth_constraint", 2, 3), each("width_constraint", 2, 3))),
    "self_reference": offered(category="logic", judge="number", axes=(each("difficulty", *range(1, 11)),),
        keep={"2": 0.65, "3": 0.8}),
    "zebra_puzzles": offered(category="logic", judge="word", axes=(each("num_characteristics", 2, 3, 4),),
        fixed={"num_people": 5}),
    # probability
    "coin_flip": offered(category="probability", judge="chance", axes=(spans("trials", (4, 6), (6, 8), (8, 10), (10,
        12), (12, 15), (15, 20)),)),
})  # fmt: skip

LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "boxnet": "a plan is one round of moves, and most boards cannot be solved in one",
        "codeio": "its scorer pays for answers that look alike; our own code tasks use such programs",
        "composite": "a mix of the others, as a mixture of environments is",
        "knight_swap": "the package takes seconds to find one that has a solution",
        "propositional_logic": "any conclusion is right, so a premise that is copied is, too",
        "sentence_reordering": "words go into good orders that are not the one that is paid",
        "syllogism": "its test of validity does not ask whether the middle term is distributed",
    }
)
"""The datasets that are not offered, and why."""
