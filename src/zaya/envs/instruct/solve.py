"""Answers that follow the instructions, built by rule: every problem is solved once before it is given.

    WRITE    instructions that decide the whole text, one writer each
    EDIT     instructions that can be combined: each changes a draft, which then grows until it is accepted

What comes out is no good prose, and is not meant to be. It proves that a problem, and above all a combination, can be
solved at all, and gives the audit an answer that must earn 1.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import count, cycle, pairwise
from typing import Any

from zaya.envs.instruct.demand import words
from zaya.envs.instruct.instructions import Arguments, Instruction, has_cluster, has_prime_length, has_three_vowels
from zaya.envs.instruct.words import ADJECTIVES, BANK, FOREIGN, JAPANESE, NOUNS, PALINDROMES, VERBS

_MOST_SENTENCES = 60


class Writer:
    """Phrases of words that do not come twice before all have come once; those to be mentioned come first."""

    def __init__(self, rng: random.Random, request: str, mentions: Sequence[str], number: int) -> None:
        self.rng, self.request, self.mentions, self.number = rng, request, list(mentions), number
        self._nouns, self._verbs, self._adjectives = (
            cycle(rng.sample(stock, len(stock))) for stock in (NOUNS, VERBS, ADJECTIVES)
        )
        self._pending = iter(mentions)

    def noun(self) -> str:
        return next(self._nouns)

    def verb(self) -> str:
        return next(self._verbs)

    def adjective(self) -> str:
        return next(self._pending, None) or next(self._adjectives)

    def phrase(self, length: int) -> list[str]:
        """So many words: quiet sailors carry golden baskets."""
        kinds = [self.adjective, self.noun, self.verb, *[self.adjective, self.noun] * length]
        return [kind() for kind in kinds[:length]]

    def sentence(self, length: int = 5, end: str = ".") -> str:
        return " ".join(self.phrase(length)).capitalize() + end

    def sentences(self, at_least: int = 1) -> list[str]:
        """As many as the words of its own take, and one to spare."""
        return [self.sentence() for _ in range(max(at_least, self.number // 5 + 1))]


# ----- whole texts


def _chain(w: Writer, allowed: Callable[[list[str], str], bool]) -> list[str]:
    """Words of which each is allowed behind those before it; words to be mentioned as soon as they are, else one that
    came least often."""
    pending, found = list(w.mentions), list[str]()
    stock = w.rng.sample(BANK, len(BANK))
    used: dict[str, int] = dict.fromkeys(stock, 0)
    while pending or len(found) < w.number:
        word = next((word for word in pending if allowed(found, word)), None)
        if word is not None:
            pending.remove(word)
        else:
            word = next(word for word in sorted(stock, key=lambda word: used[word]) if allowed(found, word))
            used[word] += 1
        found.append(word)
        if len(found) > 20 * w.number:
            break
    return found


def _chained(allowed: Callable[[list[str], str], bool], join: str = " ") -> Callable[[Writer, Arguments], str]:
    return lambda w, a: join.join(_chain(w, allowed))


def _next_letter(found: list[str], word: str) -> bool:
    return not found or ord(word[0]) - 97 == (ord(found[-1][0]) - 96) % 26


def _other_parity(found: list[str], word: str) -> bool:
    from syllapy import count as syllables

    return not found or syllables(found[-1]) % 2 != syllables(word) % 2


def _language(w: Writer, a: Arguments) -> str:
    text = FOREIGN[a["language"]].format(*w.mentions)
    return text if w.number <= 50 else f"{text} {text}"


def _kinds_of_sentences(*ends: str) -> Callable[[Writer, Arguments], str]:
    def write(w: Writer, a: Arguments) -> str:
        return " ".join(w.sentence(end=end) for _ in range(w.number // 5 // len(ends) + 1) for end in ends)

    return write


def _overlap(w: Writer, a: Arguments) -> str:
    """The whole reference, and other words until its share is as small as it is to be."""

    def share() -> float:
        runs = {text[i : i + 3] for i in range(len(text) - 2)}
        return 100 * len(runs & known) / len(runs)

    text = source = a["reference_text"]
    known = {source[i : i + 3] for i in range(len(source) - 2)}
    while share() > a["percentage"] + 1:
        text += " " + w.phrase(1)[0] if w.rng.random() < 0.5 else " " + w.noun()
    return text


def _alliteration(w: Writer, a: Arguments) -> str:
    by_letter: dict[str, list[str]] = {}
    for word in w.rng.sample(BANK, len(BANK)):
        by_letter.setdefault(word[0], []).append(word)
    pending, text, total = list(w.mentions), list[str](), 0
    for length in count(2):
        if not pending and total >= w.number and length > 4:
            return " ".join(text)
        first = [pending.pop(0)] if pending else []
        letter = w.rng.choice(
            [x for x, stock in by_letter.items() if len(stock) >= length and [x] != [f[0] for f in first]]
        )
        sentence = [*first, *by_letter[letter][:length]]
        total += len(sentence)
        text.append(" ".join(sentence).capitalize() + ".")
    raise AssertionError


def _last_first(w: Writer, a: Arguments) -> str:
    found = [w.phrase(5)]
    while len(found) < 3 or sum(map(len, found)) < w.number + len(found):
        found.append([found[-1][-1], *w.phrase(5)])
    return " ".join(" ".join(sentence).capitalize() + "." for sentence in found)


def _framed(w: Writer, a: Arguments) -> str:
    lines = []
    for _ in range(w.number // 5 + 2):
        first = w.noun()
        lines.append(f"{first.capitalize()} {' '.join(w.phrase(5))} {first}.")
    return "\n".join(lines)


def _increment(w: Writer, a: Arguments) -> str:
    text: list[str] = []
    while len(text) < 3 or len(words(" ".join(text))) < w.number:
        text.append(w.sentence(5 + a["small_n"] * len(text)))
    return " ".join(text)


def _equal_sentences(w: Writer, a: Arguments) -> str:
    length = w.number // 3 + 1
    found = [w.phrase(length) for _ in range(3)]
    for sentence, word in zip(found, w.mentions, strict=True):  # all three may stand in the first
        for other in found:
            if word in other:
                other[other.index(word)] = w.adjective()
        sentence[0] = word
    stock = [word for word in w.rng.sample(BANK, len(BANK)) if not any(word in sentence for sentence in found)]
    size = max(len(" ".join(sentence)) for sentence in found) + 9
    for sentence in found:
        while (left := size - len(" ".join(sentence)) - 1) > 14:
            sentence.append(stock.pop())
        for cut in range(2, left - 2):  # two more words that fill it to the letter
            one = next((word for word in stock if len(word) == cut), None)
            other = next((word for word in stock if len(word) == left - cut - 1 and word != one), None)
            if one and other:
                sentence += [one, other]
                stock = [word for word in stock if word not in (one, other)]
                break
    return " ".join(" ".join(sentence).capitalize() + "." for sentence in found)


def _japanese(w: Writer, a: Arguments) -> str:
    found = w.phrase(w.number + 3)
    for i in range(a["N"] - 1, len(found) * 2, a["N"]):
        if i <= len(found):
            found.insert(i, w.rng.choice(JAPANESE))
    return " ".join(found)


def _questions(w: Writer, a: Arguments) -> str:
    parts = []
    for i in range(4):
        options = "\n".join(f"{letter}) {w.noun()} {w.noun()}" for letter in "ABCDE")
        parts.append(f"Question {i + 1}: {w.sentence(8 + 4 * i, '?')}\n{options}")
    return "\n\n".join(parts)


def _alphabet_story(w: Writer, a: Arguments) -> str:
    starts = {word[0]: word for word in BANK}
    return " ".join(f"{starts[chr(97 + i)].capitalize()} {' '.join(w.phrase(4))}." for i in range(26))


def _table(
    header: Sequence[str], rows: int, delimiter: str, field: str, special: bool = False
) -> Callable[[Writer, Arguments], str]:
    def write(w: Writer, a: Arguments) -> str:
        lines = [[field.format(name) for name in header]]
        for i in range(rows):
            name = '"salt & pepper"' if special and i == 0 else field.format(w.noun())
            lines.append(
                [
                    field.format(i + 1),
                    name,
                    field.format(w.adjective()),
                    field.format(2000 + i),
                    field.format(7 * i + 3),
                ]
            )
        return "\n".join(delimiter.join(line) for line in lines)

    return write


def _same_second_words(w: Writer, a: Arguments) -> str:
    body = " ".join(w.sentences())
    return f"{w.adjective().capitalize()} {a['keyword']} {w.noun()} rest. {body} {w.noun()} {a['keyword']} {w.noun()}"


def _keyword_at(w: Writer, a: Arguments) -> str:
    found = [w.phrase(5) for _ in range(max(a["n"], w.number // 5 + 1))]
    marked = w.phrase(a["m"] + 2)
    marked[a["m"] - 1] = a["keyword"]
    found.insert(a["n"] - 1, marked)
    found.append(list(w.mentions) + w.phrase(3))  # one of them may have stood where the keyword is
    # not by capitalize(), which would change nothing here but a keyword in front, and that is asked for as it is
    return " ".join(" ".join(sentence) + "." for sentence in found)


def _indented(w: Writer, a: Arguments) -> str:
    return "\n".join(" " * i + sentence for i, sentence in enumerate(w.sentences(4)))


def _halves(w: Writer, a: Arguments) -> str:
    return f"{' '.join(w.sentences(3))}\n******\n{' '.join(w.sentences(3))}"


def _sub_bullets(w: Writer, a: Arguments) -> str:
    return "\n".join(f"* {w.sentence()}\n- {w.sentence()}" for _ in range(w.number // 10 + 2))


def _late_bullets(w: Writer, a: Arguments) -> str:
    return "\n".join([" ".join(w.sentences(2)), f"* {w.sentence()}", f"* {w.sentence()}"])


def _template(w: Writer, a: Arguments) -> str:
    return f"My Answer: {' '.join(w.sentences())} My Conclusion: {w.sentence()} Future Outlook: {w.sentence()}"


def _listed(w: Writer, a: Arguments) -> str:
    return ", ".join(a["_list"])


def _no_word_twice(w: Writer, a: Arguments) -> str:
    return " ".join(w.sentences())


WRITE: dict[str, Callable[[Writer, Arguments], str]] = {
    "language:response_language": _language,
    "detectable_format:constrained_response": lambda w, a: f"{a['_answer']} {' '.join(w.sentences())}",
    "combination:two_responses": _halves,
    "ratio:sentence_type": _kinds_of_sentences(".", "?", "."),
    "ratio:sentence_balance": _kinds_of_sentences(".", "?", "!"),
    "ratio:overlap": _overlap,
    "words:alphabet": _chained(_next_letter),
    "words:vowel": _chained(lambda found, word: has_three_vowels(word)),
    "words:consonants": _chained(lambda found, word: has_cluster(word)),
    "sentence:alliteration_increment": _alliteration,
    "words:prime_lengths": _chained(lambda found, word: has_prime_length(word)),
    "format:options": lambda w, a: a["_answer"],
    "format:newline": _chained(lambda found, word: True, "\n"),
    "format:emoji": lambda w, a: (
        " ".join(w.sentence(end=" 🙂.") for _ in w.sentences()) + " " + " ".join(word + " 🙂." for word in w.mentions)
    ),
    "ratio:sentence_words": _equal_sentences,
    "count:words_japanese": _japanese,
    "words:start_verb": lambda w, a: f"{a['_verb'].capitalize()} {' '.join(w.sentences())}",
    "words:odd_even_syllables": _chained(_other_parity),
    "words:last_first": _last_first,
    "words:paragraph_last_first": _framed,
    "sentence:increment": _increment,
    "words:no_consecutive": _chained(lambda found, word: not found or found[-1][0] != word[0]),
    "format:line_indent": _indented,
    "format:list": lambda w, a: "\n".join(f"{a['sep']} {sentence}" for sentence in w.sentences(3)),
    "format:sub-bullets": _sub_bullets,
    "format:no_bullets_bullets": _late_bullets,
    "custom:mcq_count_length": _questions,
    "custom:multiples": _listed,
    "custom:reverse_newline": lambda w, a: "\n".join(a["_list"]),
    "custom:word_reverse": lambda w, a: " ".join(a["_sentence"].split()[::-1]),
    "custom:character_reverse": lambda w, a: a["_sentence"][::-1],
    "custom:european_capitals_sort": _listed,
    "custom:date_format_list": _listed,
    "custom:sentence_alphabet": _alphabet_story,
    "custom:csv_city": _table(["ID", "Country", "City", "Year", "Count"], 7, ",", "{}"),
    "custom:csv_special_character": _table(["ProductID", "Category", "Brand", "Price", "Stock"], 14, ",", "{}", True),
    "custom:csv_quotes": _table(["StudentID", "Subject", "Grade", "Semester", "Score"], 3, "\t", '"{}"'),
    "words:keywords_specific_position": _keyword_at,
    "words:words_position": _same_second_words,
    "repeat:repeat_change": lambda w, a: " ".join(["Sketch", *a["prompt_to_repeat"].split()[1:]]),
    "repeat:repeat_simple": lambda w, a: a["_answer"],
    "repeat:repeat_span": lambda w, a: " ".join(a["prompt_to_repeat"].split()[a["n_start"] : a["n_end"]]),
    "format:output_template": _template,
    "format:no_whitespace": _chained(lambda found, word: True, "-"),
}


# ----- drafts


class Draft:
    """A text in parts that instructions can change, and that grows by sentences."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.body: list[str] = []
        self.before: list[str] = []
        """Lines in front of the body."""
        self.after: list[str] = []
        """Lines behind it."""
        self.end = ""
        """The very last words."""
        self.placed: dict[int, str] = {}
        """Sentences by their place in the body."""
        self.most_sentences: int | None = None
        self.paragraphs: tuple[int, str] = (1, " ")
        """How many, and what separates them."""
        self.headings: str | None = None
        """Word that stands above each paragraph, with its number."""
        self.starts: dict[int, str] = {}
        """Words that paragraphs begin with."""
        self.whole: list[Callable[[str], str]] = []
        """What is done to the text as a whole, in order."""
        self.with_grammar = False
        """Whether sentences have the small words that tell one language from another."""

    def grow(self) -> None:
        w = self.writer
        if self.with_grammar:
            self.body.append(
                f"The {w.adjective()} {w.noun()} {w.verb()} with the {w.adjective()} {w.noun()} that they have."
            )
        else:
            self.body.append(w.sentence())

    def text(self) -> str:
        body = list(self.body)
        for place, sentence in sorted(self.placed.items()):
            body.insert(place, sentence)
        if self.most_sentences is not None and len(body) > self.most_sentences:
            kept, more = body[: self.most_sentences], body[self.most_sentences :]
            kept[-1] = " while ".join([kept[-1].rstrip("."), *(s.rstrip(".").lower() for s in more)]) + "."
            body = kept
        number, separator = self.paragraphs
        parts = [body[i * len(body) // number : (i + 1) * len(body) // number] for i in range(number)]
        blocks = [" ".join([*([self.starts[i]] if i in self.starts else []), *part]) for i, part in enumerate(parts)]
        if self.headings:
            blocks = [f"{self.headings} {i + 1}\n{block}" for i, block in enumerate(blocks)]
        lines = [*self.before, separator.join(blocks), *self.after]
        text = "\n".join(lines) + (f" {self.end}" if self.end else "")
        for change in self.whole:
            text = change(text)
        return text


Edit = Callable[[Draft, Any], None]


def _add(make: Callable[[Writer, Arguments], list[str]]) -> Edit:
    """Sentences that the body begins with."""

    def edit(d: Draft, a: Arguments) -> None:
        d.body += make(d.writer, a)

    return edit


def _set(**values: Any) -> Edit:
    """Fields of the draft; what can be called is called with the arguments."""

    def edit(d: Draft, a: Arguments) -> None:
        for name, value in values.items():
            setattr(d, name, value(a) if callable(value) else value)

    return edit


def _then(change: Callable[[str], str], *, grammar: bool = False) -> Edit:
    def edit(d: Draft, a: Arguments) -> None:
        d.whole.append(change)
        d.with_grammar = d.with_grammar or grammar

    return edit


def _nothing(d: Draft, a: Arguments) -> None:
    """Growing is enough."""


def _mention(w: Writer, keywords: Sequence[str]) -> list[str]:
    return [f"{w.adjective().capitalize()} {w.noun()} {w.verb()} {keyword} {w.noun()}." for keyword in keywords]


def _sentence_number(d: Draft, a: Arguments) -> None:
    if a["relation"] == "less than":
        d.most_sentences = a["num_sentences"] - 1


def _letter(w: Writer, a: Arguments) -> list[str]:
    stock = [word for word in BANK if a["letter"] in word]
    chosen = [w.rng.choice(stock) for _ in range(a["let_frequency"])]
    return [f"{w.noun().capitalize()} praise {word}." for word in chosen]


def _first_word(d: Draft, a: Arguments) -> None:
    d.paragraphs = (a["num_paragraphs"], "\n\n")
    d.starts = {a["nth_paragraph"] - 1: a["first_word"].capitalize() + " first."}


def _sections(d: Draft, a: Arguments) -> None:
    d.paragraphs, d.headings = (a["num_sections"], "\n"), a["section_spliter"]


def _bullets(d: Draft, a: Arguments) -> None:
    d.after += [f"* {d.writer.sentence()}" for _ in range(a["num_bullets"])]


def _postscript(d: Draft, a: Arguments) -> None:
    d.after.append(f"{a['postscript_marker']} {d.writer.sentence()}")


def _keyword_sentence(d: Draft, a: Arguments) -> None:
    d.placed[a["N"] - 1] = _mention(d.writer, [a["word"]])[0]


def _theses(d: Draft, a: Arguments) -> None:
    d.paragraphs = (a["_sections"], "\n\n")
    d.starts = {i: f"<i>{d.writer.sentence()}</i>" for i in range(a["_sections"])}


def _names(w: Writer, a: Arguments) -> list[str]:
    from zaya.envs.instruct.checkers import describe

    listed = describe("count:person_names", a).rpartition(":")[2].strip(" .").split(", ")
    return [f"{name} and {other} walk." for name, other in pairwise(w.rng.sample(listed, a["N"] + 1))]


_CONJUNCTIONS = (
    "They rest and read.", "They try but fail.", "They rest for years.", "They rest nor read.", "They read or rest.",
    "They rest so often.", "They rest yet worry.",
)  # fmt: skip

EDIT: dict[str, Edit] = {
    "keywords:existence": _add(lambda w, a: _mention(w, a["keywords"])),
    "keywords:frequency": _add(lambda w, a: _mention(w, [a["keyword"]] * a["frequency"])),
    "keywords:forbidden_words": _nothing,
    "keywords:letter_frequency": _add(_letter),
    "length_constraints:number_sentences": _sentence_number,
    "length_constraints:number_paragraphs": _set(paragraphs=lambda a: (a["num_paragraphs"], "\n***\n")),
    "length_constraints:number_words": _nothing,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _add(
        lambda w, a: [f"{w.noun().capitalize()} carry [{w.noun()}] here." for _ in range(a["num_placeholders"])]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:number_highlighted_sections": _add(
        lambda w, a: [f"{w.noun().capitalize()} praise *{' '.join(w.phrase(2))}*." for _ in range(a["num_highlights"])]
    ),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _then(lambda text: json.dumps({"answer": text})),
    "detectable_format:title": lambda d, a: d.before.insert(0, f"<<{' '.join(d.writer.phrase(2))}>>"),
    "combination:repeat_prompt": lambda d, a: d.before.insert(0, a["prompt_to_repeat"]),
    "startend:end_checker": _set(end=lambda a: a["end_phrase"]),
    "change_case:capital_word_frequency": _add(
        lambda w, a: [f"{w.noun().capitalize()} praise {w.noun().upper()}." for _ in range(a["capital_frequency"])]
    ),
    "change_case:english_capital": _then(str.upper, grammar=True),
    "change_case:english_lowercase": _then(str.lower, grammar=True),
    "punctuation:no_comma": _nothing,
    "startend:quotation": _then(lambda text: f'"{text}"'),
    "count:word_count_range": _nothing,
    "count:unique_word_count": _nothing,
    "ratio:stop_words": _nothing,
    "count:conjunctions": _add(lambda w, a: list(_CONJUNCTIONS[: a["small_n"]])),
    "count:person_names": _add(_names),
    "count:numbers": _add(
        lambda w, a: [f"{w.noun().capitalize()} carry {w.rng.randint(2, 99)} {w.noun()}." for _ in range(a["N"])]
    ),
    "words:palindrome": _add(lambda w, a: [f"{' '.join(w.rng.sample(PALINDROMES, 10)).capitalize()}."]),
    "count:punctuation": _add(lambda w, a: ["They sing; they rest, they read: all is well! Is it?", "Really?!"]),
    "format:parentheses": _add(lambda w, a: ["They rest (by [the {old (stone [quiet] wall) there} now] at) last."]),
    "format:quotes": _add(lambda w, a: ['They said "she wrote \'he sang "a song" there\' once" again.']),
    "words:repeats": _nothing,
    "sentence:keyword": _keyword_sentence,
    "count:pronouns": _add(lambda w, a: ["They told us about it." for _ in range(a["N"] // 3 + 1)]),
    "format:quote_unquote": _add(
        lambda w, a: [f'The words "{w.noun()}" mean what they always have meant.' for _ in range(2)]
    ),
    "format:thesis": _theses,
    "count:keywords_multiple": _add(
        lambda w, a: [s for i, n in enumerate((1, 2, 3, 5, 7)) for s in _mention(w, [a[f"keyword{i + 1}"]] * n)]
    ),
    "format:title_case": _then(str.title),
}

_LAST = (
    "change_case:english_capital",
    "change_case:english_lowercase",
    "format:title_case",
    "startend:quotation",
    "detectable_format:json_format",
)


def solve(
    instructions: Sequence[tuple[Instruction, Arguments]], writer: Writer, accepts: Callable[[str], bool]
) -> str | None:
    """A text that is accepted; None where none was found."""
    if len(instructions) == 1 and (write := WRITE.get(instructions[0][0].id)):
        text = write(writer, instructions[0][1])
        return text if accepts(text) else None
    draft = Draft(writer)
    # what is done to the whole text comes last, and the wrapping behind the letters
    for instruction, arguments in sorted(
        instructions, key=lambda pair: _LAST.index(pair[0].id) if pair[0].id in _LAST else -1
    ):
        EDIT[instruction.id](draft, arguments)
    for _ in range(_MOST_SENTENCES):
        draft.grow()
        if accepts(text := draft.text()):
            return text
    return None
