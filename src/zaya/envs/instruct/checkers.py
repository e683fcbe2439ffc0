"""The checkers of the package `if-verifiable`: those of IFEval (arXiv 2311.07911) and IFBench (2507.02833).

    describe(id, arguments)         the instruction in the package's words
    follows(id, arguments, text)    whether a text follows it

The package would fetch data for nltk when it is imported, and data sets with it. Here its submodules are imported
alone, and what they see as `nltk` is a stand-in that has no network: words are split by nltk's own rules, which need no
data; sentences and stop words are ours. A part-of-speech tagger there is none, nor is the one checker that needs it
offered. Runs in the workers of `envs.pool`. Source: spec post-training 11.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from zaya.envs.instruct.words import STOP_WORDS
from zaya.errors import UsageError


def sentences(text: str) -> list[str]:
    """A text cut behind each run of . ! and ?, with the closing quotes and brackets there, that white space follows."""
    return [part for part in re.split(r"(?<=[.!?])[\"')\]”’]*\s+", text.strip()) if part]


def load() -> None:
    """Import the package now. Raises UsageError where it is not installed."""
    _classes()


def identifiers() -> frozenset[str]:
    """Of every instruction there is a checker for."""
    return frozenset(_classes())


def describe(identifier: str, arguments: Mapping[str, Any]) -> str:
    return str(_checker(identifier).build_description(**arguments))


def follows(identifier: str, arguments: Mapping[str, Any], text: str) -> bool:
    """Never raises: a text that breaks a checker does not follow the instruction."""
    checker = _checker(identifier)
    checker.build_description(**arguments)
    try:
        return bool(checker.check_following(text))
    except MemoryError:
        raise  # for the pool, which calls it by its name
    except Exception:
        return False


def _checker(identifier: str) -> Any:
    return _classes()[identifier](identifier)


@cache
def _classes() -> dict[str, Any]:
    """Every checker by its identifier. No identifier is in both benchmarks."""
    found = find_spec("if_verifiable")
    if found is None or found.submodule_search_locations is None:
        raise UsageError("instruct/ needs the package if-verifiable", hint="pip install 'openzaya[envs]'")
    parent = ModuleType("if_verifiable")
    parent.__path__ = list(found.submodule_search_locations)
    try:
        with _in_place({"if_verifiable": parent, "nltk": _offline_nltk()}):
            registries = [
                import_module(f"if_verifiable.{name}.instructions_registry") for name in ("ifeval", "ifbench")
            ]
        langdetect = import_module("langdetect")
    except ImportError as error:
        raise UsageError(f"instruct/ needs the extra 'envs': {error}", hint="pip install 'openzaya[envs]'") from error
    langdetect.DetectorFactory.seed = 0  # it draws at random otherwise, and a text has another language now and then
    ifeval, ifbench = (registry.INSTRUCTION_DICT for registry in registries)
    assert not ifeval.keys() & ifbench.keys()
    return {**ifeval, **ifbench}


def conflicts() -> dict[str, set[str]]:
    """IFEval's table of instructions that exclude each other, made symmetric."""
    _classes()
    table = sys.modules["if_verifiable.ifeval.instructions_registry"].INSTRUCTION_CONFLICTS
    both: dict[str, set[str]] = {}
    for one, others in table.items():
        for other in others:
            both.setdefault(one, set()).add(other)
            both.setdefault(other, set()).add(one)
    return both


def _offline_nltk() -> ModuleType:
    """As much of nltk as the checkers use, and none of what needs data."""
    from nltk.tokenize import NLTKWordTokenizer, RegexpTokenizer
    from nltk.util import ngrams

    words = NLTKWordTokenizer()

    class _Sentences:
        tokenize = staticmethod(sentences)

    class _StopWords:
        words = staticmethod(lambda language: STOP_WORDS)

    def module(name: str, **attributes: Any) -> ModuleType:
        made = ModuleType(name)
        made.__dict__.update(attributes)
        return made

    return module(
        "nltk",
        word_tokenize=lambda text: [word for sentence in sentences(text) for word in words.tokenize(sentence)],
        ngrams=ngrams,
        tokenize=module("nltk.tokenize", RegexpTokenizer=RegexpTokenizer),
        data=module("nltk.data", find=lambda path: path, load=lambda path: _Sentences),  # there is nothing to fetch
        corpus=module("nltk.corpus", stopwords=_StopWords),
    )


@contextmanager
def _in_place(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Modules that an import meets under these names, for as long as it takes."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
