"""Promises of envs/instruct:

1. Every instruction of both benchmarks gives problems, the same ones from the same seed, whose reference earns 1.
2. Nothing, white space, the prompt copied, another problem's answer, an answer that lacks one of the words it has to
   mention, and one that is far too long earn 0.
3. For every instruction there is an answer that has all it needs but does not follow it, and earns 0.
4. What fools a checker of the package does not fool ours; what an honest person would write passes.
5. Loosely right is what IFEval calls so; it earns nothing in training.
6. Nothing is fetched, drawn at random or left behind in the process: not by importing, sampling or scoring.
7. The slowest texts known for these checkers are judged in bounded time, and nothing raises.
8. `mixed` attaches 1 + d instructions that no table says exclude each other.
9. The stocks of words keep apart what has to be apart.
10. Instructions that the benchmark has for one prompt are right about what they drew: another way from prompt to answer
    comes to the same.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from itertools import combinations
from typing import Any

import pytest

pytest.importorskip("if_verifiable")

from zaya.envs import registry
from zaya.envs.base import Problem, Status
from zaya.envs.instruct import checkers, drawn, tasks
from zaya.envs.instruct.demand import lacks, own_words
from zaya.envs.instruct.instructions import ANCHORS, BY_NAME, KEYWORDS, OFFERED
from zaya.envs.instruct.solve import EDIT, WRITE
from zaya.envs.instruct.words import BANK, NAMES, PALINDROMES, SINGLE, STOP_WORDS
from zaya.envs.pool import TaskPool
from zaya.errors import UsageError

NAMES_OF_TASKS = tasks.names()


def problem_of(name: str, seed: int = 0, difficulty: int = 0) -> Problem:
    problem = tasks.environment(name).sample(seed, difficulty)
    assert problem is not None, name
    return problem


def reward(problem: Problem, text: str) -> float:
    score = registry.get(problem.env).score(problem, text)
    assert score.reward == float(score.correct)
    return score.reward


def prose(problem: Problem) -> str:
    """An ordinary answer with all that any answer needs."""
    first, second, third = problem.meta["mentions"] or ("road", "hill", "wind")
    return (
        f"Yesterday, the {first} stood there, but I saw the {second} and, of course, the {third}. "
        "People came and went, and the long day was over. Nobody said a word about it, so we all went home again, "
        "happy and tired and full of stories."
    )


# 1


@pytest.mark.parametrize("name", NAMES_OF_TASKS)
def test_references_earn_1(name: str) -> None:
    environment = registry.get(name)
    assert environment.name == name
    for difficulty in (0, environment.about.highest or 0):
        problems = [environment.sample(seed, difficulty) for seed in range(3)]
        made = [problem for problem in problems if problem is not None]
        assert len(made) == 3
        assert len({problem.digest for problem in made}) == 3
        assert [environment.sample(seed, difficulty) for seed in range(3)] == problems
        for problem in made:
            assert Problem.from_json(problem.to_json()) == problem
            assert reward(problem, environment.reference(problem) or "") == 1


def test_what_is_offered() -> None:
    offered = {instruction.id for instruction in OFFERED}
    assert offered == checkers._classes().keys()
    assert len(offered) == 25 + 58
    assert offered == EDIT.keys() | WRITE.keys()
    assert not EDIT.keys() & WRITE.keys()
    with pytest.raises(UsageError, match=r"no instruction 'keywords\.existance'"):
        registry.get("instruct/keywords.existance")


def test_the_pool_gives_the_same_problems_and_scores() -> None:
    names = ["instruct/mixed", "instruct/change_case.english_lowercase", "instruct/words.odd_even_syllables"]
    with TaskPool(1, sample_timeout_s=60, score_timeout_s=60) as pool:
        made = pool.sample([(name, 5, 1) for name in names])
        assert made == [problem_of(name, 5, 1) for name in names]
        scores = pool.score([(problem, problem.meta["reference"]) for problem in made if problem is not None])
    assert [score.reward for score in scores] == [1, 1, 1]


# 2


@pytest.mark.parametrize("name", NAMES_OF_TASKS)
def test_what_earns_nothing(name: str) -> None:
    environment = tasks.environment(name)
    problems = [problem_of(name, seed, 1) for seed in range(3)]
    for i, problem in enumerate(problems):
        reference = problem.meta["reference"]
        other = problems[i - 1].meta["reference"]
        assert other != reference
        texts = ["", " \n", problem.prompt, problem.prompt + "\n" + problem.prompt, other]
        texts += [re.sub(rf"(?i)\b{word}\b", "thing", reference) for word in problem.meta["mentions"]]
        texts += [" ".join(problem.meta["mentions"]), "word " * 50 + " ".join(problem.meta["mentions"])]
        assert [reward(problem, text) for text in texts] == [0] * len(texts)
    assert environment.score(problems[0], "").status is Status.BAD_FORMAT
    reference = problems[0].meta["reference"]
    assert environment.score(problems[0], reference + " a" * 500_000).status is Status.ANSWER_LIMIT


def test_words_of_its_own_by_hand() -> None:
    prompt = "Write a note about the sea and the sun."
    assert own_words("Write a note about the sea", prompt) == []
    assert own_words("a note about the", prompt) == ["a", "note", "about", "the"]  # four in a row are no copy
    assert own_words("He said: WRITE a note, about the sea! Then 12 he left.", prompt) == [
        "he",
        "said",
        "then",
        "he",
        "left",
    ]
    assert own_words("", prompt) == own_words("1 2 3 ... !", prompt) == []


def test_one_word_too_few() -> None:
    own = list(BANK[:17])
    assert lacks(" ".join([*own, "Tea", "ink", "map"]), "", 20, ["tea", "ink", "map"]) is None
    assert lacks(" ".join([*own[1:], "tea", "ink", "map"]), "", 20, ["tea", "ink", "map"]) is not None
    assert lacks(" ".join([*own, "tea", "ink", "maps"]), "", 20, ["tea", "ink", "map"]) == "does not mention map"
    assert lacks(" ".join([*own[:7], *own[:7], *own[:3], "tea", "ink", "map"]), "", 20, ["tea", "ink", "map"]) is None
    assert (
        lacks(" ".join([*own[:6], *own[:6], *own[:6], "tea", "ink", "map"]), "", 20, ["tea", "ink", "map"]) is not None
    )


def test_no_text_serves_for_all() -> None:
    for name in ("instruct/punctuation.no_comma", "instruct/language.response_language"):
        for seed in range(3):
            problem = problem_of(name, seed)
            everything = f"{problem.meta['reference']} {' '.join((*ANCHORS, *NAMES))}"
            score = tasks.environment(name).score(problem, everything)
            assert score.reward == 0
            assert "words that other requests name" in score.detail


# 3

Change = Callable[[str, dict[str, Any]], str]


def drop(pattern: str, put: str = "", count: int = 0) -> Change:
    return lambda text, a: re.sub(pattern, put, text, count=count, flags=re.MULTILINE)


BROKEN: dict[str, Change] = {
    # where ordinary prose follows the instruction by chance, or is no answer: what breaks it
    "keywords:forbidden_words": lambda text, a: f"{text} And {a['forbidden_words'][-1].upper()} so.",
    "length_constraints:number_sentences": lambda text, a: (
        text.replace(".", ";") if a["relation"] == "at least" else text + " They rest there." * a["num_sentences"]
    ),
    "length_constraints:number_words": lambda text, a: (
        " ".join(text.split()[: a["num_words"] - 1]) if a["relation"] == "at least" else text + " word" * a["num_words"]
    ),
    "count:word_count_range": lambda text, a: text + " word" * (a["max_words"] - a["min_words"] + 5),
    "count:unique_word_count": lambda text, a: " ".join(text.split()[: a["N"] - 1]),
    "count:conjunctions": lambda text, a: text.replace("and", "while"),
    "words:no_consecutive": lambda text, a: text + " tall towers",
    "format:options": lambda text, a: a["options"],
    "repeat:repeat_change": lambda text, a: a["prompt_to_repeat"],
    "repeat:repeat_span": lambda text, a: text + " more",
    "words:start_verb": lambda text, a: "They " + text,
    "repeat:repeat_simple": lambda text, a: text.replace(" and", ","),
    "custom:multiples": lambda text, a: text.partition(", ")[2],
    "custom:reverse_newline": lambda text, a: "\n".join(text.split("\n")[::-1]),
    "custom:word_reverse": lambda text, a: a["_sentence"],
    "custom:character_reverse": lambda text, a: text.replace(" ", ""),
    "custom:european_capitals_sort": lambda text, a: text + ", Oslo",
    "custom:date_format_list": lambda text, a: text.replace("-", "/"),
}


@pytest.mark.parametrize("instruction", OFFERED, ids=lambda instruction: instruction.name)
def test_every_instruction_can_be_broken(instruction: Any) -> None:
    for seed in range(4):
        problem = problem_of(f"instruct/{instruction.name}", seed)
        arguments = problem.meta["instructions"][0][1]
        if (change := BROKEN.get(instruction.id)) is not None:
            text = change(problem.meta["reference"], arguments)
            assert text != problem.meta["reference"]
        else:
            text = prose(problem)
        score = tasks.environment(problem.env).score(problem, text)
        assert score.reward == 0
        assert score.detail == f"does not follow {instruction.name}", text


# 4

FOOLED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("keywords:existence", {"keywords": ["grape"]}, "They sell grapefruit."),
    ("keywords:frequency", {"keyword": "ant", "frequency": 3, "relation": "at least"}, "Elephants want plants."),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 5, "let_relation": "at least"}, "zzzzz"),
    ("length_constraints:number_sentences", {"num_sentences": 4, "relation": "at least"}, "A. B. C. D."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, "a\n***\nb\n***\nc"),
    ("detectable_content:number_placeholders", {"num_placeholders": 3}, "[] [] []"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "p.s. is how letters end, and this goes on."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}, "- \n-\n- "),
    ("detectable_format:constrained_response", {"_answer": "My answer is no."}, "My answer is yes. My answer is no."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 4}, "*word* *word* *word* *word*"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 3},
        "Section 1 Section 1 Section 1",
    ),
    ("detectable_format:json_format", {}, '"just a text"'),
    ("combination:two_responses", {}, "Yes.\n******\nNo."),
    ("change_case:capital_word_frequency", {"capital_frequency": 3, "capital_relation": "at least"}, "I think I and A"),
    ("ratio:sentence_type", {}, "no sentence at all"),
    ("ratio:sentence_balance", {}, "no sentence at all"),
    ("count:conjunctions", {"small_n": 3}, "and and, and."),
    ("count:person_names", {"N": 3}, "Isabella Leonardo Averyx Avalon"),
    ("sentence:alliteration_increment", {}, "One sentence, and nothing that comes behind it"),
    ("words:palindrome", {}, "aaaaa bbbbb ccccc ddddd eeeee fffff ggggg hhhhh iiiii jjjjj"),
    ("format:parentheses", {}, "((((( word )"),
    ("format:quotes", {}, '"\'""\'"'),
    ("format:newline", {}, "two words\n \nthree"),
    ("ratio:sentence_words", {}, "The sea is so old. The sea is so old. The sea is so old."),
    ("count:words_japanese", {"N": 2}, "one 2 three 4 five 6"),
    ("words:last_first", {}, "One sentence alone"),
    ("words:paragraph_last_first", {}, "one\ntwo\nthree"),
    ("sentence:increment", {"small_n": 2}, "One sentence alone."),
    ("format:line_indent", {}, "One line alone"),
    ("format:quote_unquote", {}, "Nothing is quoted here"),
    ("format:list", {"sep": "..."}, "Well... I do not know..."),
    ("format:thesis", {"_sections": 2}, "Text.\n\n<i>One</i> thesis."),
    ("format:sub-bullets", {}, "No bullets here"),
    ("custom:sentence_alphabet", {}, " ".join(f"{chr(97 + i)}a." for i in range(26))),
    ("custom:csv_city", {}, "ID,Country,City,Year,Count\n" + "\n".join([",,,,"] * 7)),
    ("repeat:repeat_change", {"prompt_to_repeat": "Write a note."}, "  Write a note."),
    ("format:output_template", {}, "Future Outlook: My Conclusion: My Answer:"),
    ("custom:date_format_list", {"_list": ["1796-05-10", "1815-06-18"]}, "1815-06-18, 1796-05-10"),
    ("custom:date_format_list", {"_list": ["1796-05-10"]}, "1800-01-01, 1800-00-00"),
)


@pytest.mark.parametrize(("identifier", "arguments", "text"), FOOLED, ids=lambda value: str(value)[:40])
def test_what_fools_the_package(identifier: str, arguments: dict[str, Any], text: str) -> None:
    instruction = BY_NAME[identifier.replace(":", ".")]
    plain = {name: value for name, value in arguments.items() if not name.startswith("_")}
    assert checkers.follows(identifier, plain, text), "the package has learned; this case can go"
    assert not tasks.follows(instruction, arguments, text)


HONEST: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("keywords:existence", {"keywords": ["grape", "sea"]}, "Grape by grape, we ate our way down to the Sea."),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        "It rained a lot. We stayed home! Did you like it?",
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        "The first part is here.\n\n***\n\nThe second part is here.",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "tea"},
        "One.\n\nTea, they say, helps.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name],\ncome to [street address]."),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        "Dear Ann,\nall is well.\n\nP.P.S. Bring the dog with you.",
    ),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}, "Here they are:\n\n- one\n- two\n* three"),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        "A *quiet place* with **old trees** in it.",
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\n\nIt was early morning.\n\nSECTION 2\nIt was late.",
    ),
    ("detectable_format:json_format", {}, '```json\n{"title": "x", "text": ["a", 1]}\n```'),
    ("detectable_format:title", {}, "<<The Old Mill>>\n\nIt stood by the river."),
    (
        "combination:two_responses",
        {},
        "The old mill stands by the river and turns.\n\n******\n\nNobody has lived up there since last winter came.",
    ),
    ("startend:end_checker", {"end_phrase": "Thank you for reading."}, "All is well. Thank you for reading."),
    ("startend:quotation", {}, '"It was late," she said, "and cold."'),
    (
        "change_case:english_capital",
        {},
        "IT WAS A COLD MORNING, AND THE STREETS WERE EMPTY. NOBODY HAD SEEN THE MAN WITH THE HAT.",
    ),
    (
        "change_case:english_lowercase",
        {},
        "it was a cold morning, and the streets were empty. nobody had seen the man with the hat.",
    ),
    (
        "language:response_language",
        {"language": "fr"},
        "Il faisait froid ce matin-là, et les rues étaient vides. Clara n'avait vu personne.",
    ),
    (
        "language:response_language",
        {"language": "de"},
        "Es war ein kalter Morgen, und die Straßen waren leer. Clara hatte niemanden gesehen.",
    ),
    ("ratio:sentence_type", {}, "The mill is old. It still turns. Who owns it?"),
    ("ratio:sentence_balance", {}, "The mill is old. Does it turn? It does indeed!"),
    ("count:conjunctions", {"small_n": 4}, "He came and went, but so did she, for it was late."),
    ("count:person_names", {"N": 3}, "Leo and Ella met Grace."),
    ("count:numbers", {"N": 3}, "In 1920 it had 14 rooms and 1,200 books."),
    ("words:alphabet", {}, "Yellow zebras are, by common decree, eternally free."),
    (
        "sentence:alliteration_increment",
        {},
        "The sun set. We like small silent seas. Every big bold blue boat was here.",
    ),
    ("count:punctuation", {}, "Wait; what?! He said: yes, it is! Is it? It is."),
    ("format:parentheses", {}, "He went (or so [they say {at least (some of them [not all of them] do)}])."),
    ("format:quotes", {}, 'She wrote: "He told me \'I heard her say "never again" twice\' and left."'),
    ("format:emoji", {}, "It rains 🌧️. We stay home 🏠! Fine 🙂"),
    ("count:words_japanese", {"N": 4}, "I saw a 猫 on the old 橋, and the quiet 水 below it."),
    ("words:last_first", {}, "The road leads to the sea. Sea air is good for sleep. Sleep well."),
    ("words:paragraph_last_first", {}, "Rain fell on the hills, more rain.\n\nNight came early; it was night."),
    ("sentence:increment", {"small_n": 2}, "It rained. The old dog slept. Nobody went out before the evening."),
    ("format:line_indent", {}, "the sun\n  came up\n    over the hill\n      and stayed"),
    ("format:quote_unquote", {}, 'The "old mill" is what we call it, and "the wheel" is its only part that moves.'),
    ("format:list", {"sep": "=>"}, "=> bread and butter\n=> two apples\n=> a knife"),
    ("format:thesis", {"_sections": 2}, "<em>Mills matter.</em> They fed us.\n\n<i>They are gone.</i> Few remain."),
    ("format:sub-bullets", {}, "* Food\n  - bread\n  - milk\n* Tools\n  - a knife"),
    ("format:no_bullets_bullets", {}, "We need a few things. Here they are.\n\n* bread and milk\n* a knife"),
    (
        "custom:csv_special_character",
        {},
        "ProductID,Category,Brand,Price,Stock\n" + "\n".join(f'{i},Tea,"A&{i}",3,4' for i in range(14)),
    ),
    ("repeat:repeat_change", {"prompt_to_repeat": "Write a short note."}, "Draft a short note."),
    ("format:title_case", {}, "The Old Mill Stands By The River; It's Quiet."),
    ("format:output_template", {}, "My Answer: it is late.\nMy Conclusion: we go.\nFuture Outlook: we come back."),
    ("words:words_position", {"keyword": "tea"}, "Good tea or what I take for it, is what they call tea here"),
    ("words:start_verb", {"_verb": "borrow"}, "**Borrow** a book, they say."),
    ("repeat:repeat_simple", {"_answer": "Only say this."}, " only say this.\n"),
    ("custom:multiples", {"_list": ["14", "21"]}, "14,21."),
    ("custom:reverse_newline", {"_list": ["tulip", "apron"]}, "- Tulip\n\n- Apron\n"),
    ("custom:word_reverse", {"_sentence": "old dogs sleep"}, "Sleep dogs old."),
    ("custom:character_reverse", {"_sentence": "old dogs"}, '"Sgod dlo."'),
    ("custom:european_capitals_sort", {"_list": ["Oslo", "Rome"]}, "Oslo,  Rome"),
    ("custom:date_format_list", {"_list": ["1796-05-10", "1815-06-18"]}, "1796-05-10,1815-06-18"),
)


@pytest.mark.parametrize(("identifier", "arguments", "text"), HONEST, ids=lambda value: str(value)[:40])
def test_what_honest_people_write(identifier: str, arguments: dict[str, Any], text: str) -> None:
    assert tasks.follows(BY_NAME[identifier.replace(":", ".")], arguments, text)


# 5


def test_loosely_right_earns_nothing() -> None:
    problem = problem_of("instruct/startend.end_checker")
    environment = tasks.environment(problem.env)
    reference = problem.meta["reference"]
    assert environment.is_loosely_right(problem, reference)
    cuts = (f"Sure:\n{reference}\nAnything else", f"{reference}\nI hope it helps")
    for text in (*cuts, f"{reference}**", f"Sure:\n{reference}**\nAnything *else*", f"{reference}**\nI hope it helps"):
        assert environment.is_loosely_right(problem, text)
        assert reward(problem, text) == 0
    for text in ("", prose(problem), problem.prompt, f"{reference}\nI hope\nit helps"):
        assert not environment.is_loosely_right(problem, text)


def test_a_pool_tells_both_readings_apart() -> None:
    problem = problem_of("instruct/startend.end_checker")
    reference = problem.meta["reference"]
    texts = [reference, f"{reference}\nI hope it helps", "no"]
    with TaskPool() as pool:
        assert [score.correct for score in pool.score([(problem, text) for text in texts])] == [True, False, False]
        assert pool.loosely_right([(problem, text) for text in texts]) == [True, True, False]


# 6


def test_nothing_is_fetched_or_left_behind() -> None:
    code = """
import random, socket, sys
def refuse(*a, **k): raise AssertionError("network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from zaya.envs.instruct import tasks
assert "nltk" not in sys.modules and "if_verifiable" not in sys.modules
random.seed(1); before = random.getstate()
for name in ("change_case.english_capital", "ratio.stop_words", "format.title_case", "mixed"):
    environment = tasks.environment("instruct/" + name)
    problem = environment.sample(1, 1)
    assert environment.score(problem, problem.meta["reference"]).correct
assert random.getstate() == before
import nltk
assert nltk.__file__, "the stand-in was left behind"
assert "datasets" not in sys.modules and "torch" not in sys.modules and "if_verifiable" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_language_of_a_text_is_always_the_same() -> None:
    text = "Lantern sailors carry"  # unseeded, every other time French
    import langdetect

    checkers.load()
    assert len({langdetect.detect(text) for _ in range(60)}) == 1


# 7

SLOW = (
    "\n",
    "\t",
    "[",
    "<<",
    "- \n",
    "P.",
    "*a",
    "a ",
    "?!",
    "\ud800",
    "\x85 ",
    "Question 1\n",
    '{"a":',
    "((",
    "🙂",
    "\x00",
)


@pytest.mark.parametrize("unit", SLOW, ids=ascii)
def test_slow_texts_end(unit: str) -> None:
    text = (unit * tasks.LONGEST_ANSWER)[: tasks.LONGEST_ANSWER]
    arguments = {i.name: problem_of(f"instruct/{i.name}").meta["instructions"][0][1] for i in HARD}
    for instruction in HARD:
        assert not tasks.follows(instruction, arguments[instruction.name], text)


HARD = [
    BY_NAME[name]
    for name in (
        "detectable_content.number_placeholders", "detectable_content.postscript",
        "detectable_format.number_bullet_lists", "detectable_format.title",
        "format.quotes", "format.parentheses", "custom.mcq_count_length", "format.thesis",
        "detectable_format.json_format", "words.words_position",
    )
]  # fmt: skip
"""Those with patterns that go over a text again and again."""


@pytest.mark.slow
def test_nothing_raises_whatever_the_text() -> None:
    rng = random.Random(0)
    alphabet = [
        "a",
        "B",
        " ",
        "\n",
        ".",
        "?",
        "!",
        '"',
        "'",
        "*",
        "-",
        "(",
        "]",
        "{",
        "<i>",
        ",",
        "1",
        "猫",
        "🙂",
        "\ud800",
        "\x00",
    ]
    texts = ["", *("".join(rng.choices(alphabet, k=rng.randint(1, 60))) for _ in range(60))]
    for instruction in OFFERED:
        arguments = problem_of(f"instruct/{instruction.name}").meta["instructions"][0][1]
        for text in texts:
            assert tasks.follows(instruction, arguments, text) in (True, False)


# 8


@pytest.mark.parametrize("difficulty", range(5))
def test_mixed(difficulty: int) -> None:
    excluded = checkers.conflicts()
    assert excluded["startend:quotation"] >= {"detectable_format:title"} <= excluded["startend:quotation"]
    for seed in range(4):
        problem = problem_of("instruct/mixed", seed, difficulty)
        chosen = [BY_NAME[name].id for name, _ in problem.meta["instructions"]]
        assert len(set(chosen)) == 1 + difficulty
        assert not any(two in excluded.get(one, ()) for one, two in combinations(chosen, 2))
        for name, arguments in problem.meta["instructions"]:
            assert tasks.wording(BY_NAME[name], arguments) in problem.prompt


# 9


def test_stocks() -> None:
    assert len(set(SINGLE)) == len(SINGLE)
    assert not set(ANCHORS) & set(KEYWORDS)
    assert not [(one, two) for one in SINGLE for two in SINGLE if one != two and one in two]
    assert not [(word, one) for word in BANK for one in SINGLE if one in word]
    assert not STOP_WORDS & {*BANK, *SINGLE}
    assert all(word == word[::-1] and len(word) >= 5 for word in PALINDROMES)
    listed = checkers.describe("count:person_names", {"N": 1})
    assert not [name for name in NAMES if re.search(rf"\b{name}\b", listed)]
    assert {word[0] for word in BANK} == set("abcdefghijklmnopqrstuvwxyz")


# 10


def _multiples(prompt: str) -> str:
    start, end, factor = map(int, re.findall(r"\d+", prompt))
    return ", ".join(str(number) for number in range(start, end + 1) if number % factor == 0)


def _lines(prompt: str) -> str:
    shown = re.findall(r"[a-z]+", prompt.split(":")[1].split(".")[0])
    return "\n".join(reversed(sorted(shown)))


def _capitals(prompt: str) -> str:
    listed, asked = prompt.split("\n\n")
    least = float(re.findall(r"[\d.]*\d", asked)[0])
    found = [(float(number), name) for name, number in re.findall(r"(\w+) (\d+\.\d)", listed)]
    return ", ".join(name for number, name in sorted(found, reverse=True) if number > least)


def _days(prompt: str) -> str:
    found = [datetime.strptime(day, "%d %B %Y") for day in re.findall(r"\d+ [A-Z][a-z]+ \d{4}", prompt)]
    return ", ".join(day.strftime("%Y-%m-%d") for day in sorted(found))


def _quoted(prompt: str) -> str:
    return prompt.split('"')[1]


SOLVED: dict[str, Callable[[str], str]] = {
    "custom.multiples": _multiples,
    "custom.reverse_newline": _lines,
    "custom.european_capitals_sort": _capitals,
    "custom.date_format_list": _days,
    "custom.word_reverse": lambda prompt: " ".join(reversed(_quoted(prompt).split())),
    "custom.character_reverse": lambda prompt: "".join(reversed(_quoted(prompt))),
    "repeat.repeat_simple": lambda prompt: prompt.split("\n\n")[1],
}


@pytest.mark.parametrize("name", SOLVED)
def test_what_was_drawn_for_one_prompt(name: str) -> None:
    for difficulty in range(6):
        for seed in range(20):
            problem = problem_of(f"instruct/{name}", seed, difficulty)
            assert SOLVED[name](problem.prompt) == problem.meta["reference"]
            assert reward(problem, SOLVED[name](problem.prompt)) == 1


def test_the_verb_is_shown_among_words_that_are_none() -> None:
    assert not set(drawn._VERBS) & set(drawn._NO_VERBS)
    for seed in range(20):
        problem = problem_of("instruct/words.start_verb", seed)
        shown = problem.prompt.partition("among the words ")[2].partition(".")[0].split(", ")
        (verb,) = set(shown) & set(drawn._VERBS)
        assert set(shown) - {verb} <= set(drawn._NO_VERBS)
        for word in (verb, verb.upper(), verb + "s", "igloo"):
            assert reward(problem, f"{word} {problem.meta['reference']}") == (word.lower() == verb)
    latitudes = drawn._CAPITALS.values()
    assert len(set(latitudes)) == len(latitudes)  # in order of latitude there is one order
