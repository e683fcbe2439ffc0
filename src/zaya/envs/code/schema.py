"""What inputs of a program look like, learnt from many that its generator made.

An input is an object: its keys, and for each value its type and bounds, as far as they were seen: of numbers the least
and the largest, of strings and lists the length, of the elements of a list, or the values of an object, the same again.
A candidate for a counterexample has to fit: outside of what a program was made for, being wrong proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Shape:
    """What was seen of the values in one place."""

    kinds: set[str] = field(default_factory=set)
    """Of null, boolean, integer, number, string, list and object."""
    low: float = float("inf")
    high: float = float("-inf")
    shortest: int = 1 << 60
    """Of strings, lists and objects with keys of any name."""
    longest: int = 0
    characters: set[str] = field(default_factory=set)
    elements: Shape | None = None
    keys: dict[str, Shape] | None = None
    """Of an object that has always the same keys; None for one with others each time, whose values are `elements`."""
    words: set[str] | None = field(default_factory=set)
    """The strings themselves, where there are few; None where there are many."""

    def see(self, value: Any) -> None:
        """Widen it to fit a value."""
        kind = kind_of(value)
        self.kinds.add(kind)
        match value:
            case bool() | None:
                pass
            case int() | float():
                self.low, self.high = min(self.low, value), max(self.high, value)
            case str():
                self._length(value)
                self.characters |= set(value)
                if self.words is not None:
                    self.words.add(value)
                    self.words = self.words if len(self.words) <= 8 else None
            case list():
                self._length(value)
                for element in value:
                    self.elements = self.elements or Shape()
                    self.elements.see(element)
            case dict():
                self._length(value)
                first = self.shortest == self.longest == len(value) and self.keys is None and self.elements is None
                if first:
                    self.keys = {}
                if self.keys is not None and (first or self.keys.keys() == value.keys()):
                    for key, child in value.items():
                        self.keys.setdefault(key, Shape()).see(child)
                    return
                shape = self.elements or Shape()
                for child in (self.keys or {}).values():
                    shape.join(child)
                for child in value.values():
                    shape.see(child)
                self.keys, self.elements = None, shape

    def join(self, other: Shape) -> None:
        """Widen it to fit all that another fits."""
        self.kinds |= other.kinds
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.shortest, self.longest = min(self.shortest, other.shortest), max(self.longest, other.longest)
        self.characters |= other.characters
        words = None if self.words is None or other.words is None else self.words | other.words
        self.words = words if words is None or len(words) <= 8 else None
        for child in [*([other.elements] if other.elements else []), *(other.keys or {}).values()]:
            self.elements = self.elements or Shape()
            self.elements.join(child)

    def fits(self, value: Any) -> bool:
        """Whether a value is as those that were seen."""
        kind = kind_of(value)
        if kind not in self.kinds and not (kind == "integer" and "number" in self.kinds):
            return False
        match value:
            case bool() | None:
                return True
            case int() | float():
                return self.low <= value <= self.high
            case str():
                if self.words is not None and len(self.words) <= 3:
                    return value in self.words  # a choice
                return self.shortest <= len(value) <= self.longest and set(value) <= self.characters
            case list():
                return self.shortest <= len(value) <= self.longest and all(
                    self.elements is not None and self.elements.fits(element) for element in value
                )
            case dict():
                if self.keys is not None:
                    return self.keys.keys() == value.keys() and all(s.fits(value[key]) for key, s in self.keys.items())
                return self.shortest <= len(value) <= self.longest and all(
                    self.elements is not None and self.elements.fits(child) for child in value.values()
                )
        return False

    def _length(self, value: str | list[Any] | dict[str, Any]) -> None:
        self.shortest, self.longest = min(self.shortest, len(value)), max(self.longest, len(value))

    def words_for(self) -> str:
        """In words, for a prompt."""
        parts = []
        for kind in sorted(self.kinds):
            match kind:
                case "integer" | "number":
                    name = "whole number" if kind == "integer" else "number"
                    parts.append(f"{name} from {_number(self.low)} to {_number(self.high)}")
                case "string" if self.words is not None and len(self.words) <= 3:
                    parts.append(" or ".join(f'"{word}"' for word in sorted(self.words)))
                case "string":
                    parts.append(f"string of {self._span()} characters of {_set(self.characters)}")
                case "list":
                    inner = self.elements.words_for() if self.elements else "nothing"
                    parts.append(f"list of {self._span()} elements, each {inner}")
                case "object" if self.keys is not None:
                    parts.append(
                        "object with " + "; ".join(f"{key}: {child.words_for()}" for key, child in self.keys.items())
                    )
                case "object":
                    inner = self.elements.words_for() if self.elements else "nothing"
                    parts.append(f"object of {self._span()} entries, each value {inner}")
                case _:
                    parts.append(kind)
        return " or ".join(parts)

    def _span(self) -> str:
        return f"{self.shortest}" if self.shortest == self.longest else f"{self.shortest} to {self.longest}"


def shape_of(inputs: Iterable[Any]) -> Shape:
    """What inputs have in common."""
    shape = Shape()
    for value in inputs:
        shape.see(value)
    return shape


def kind_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "list"
        case dict():
            return "object"
    raise TypeError(f"no JSON: {type(value).__name__}")


def _set(characters: set[str]) -> str:
    """Characters, in runs of the alphabet where they are many."""
    runs: list[str] = []
    for character in sorted(characters):
        if runs and ord(character) == ord(runs[-1][-1]) + 1:
            runs[-1] = runs[-1][0] + character
        else:
            runs.append(character)
    return repr(
        "".join(run if len(run) < 2 or ord(run[1]) == ord(run[0]) + 1 else f"{run[0]}-{run[1]}" for run in runs)
    )


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.6g}"
