"""A story of mini-gsm8k under construction: its sentences, and the lines that compute what everybody holds."""

from __future__ import annotations

import random
from collections.abc import Sequence

from graphflow.benchmarks.mini.gsm8k_words import ASIDES, CONNECTORS, HE, NUMBER_WORDS
from graphflow.benchmarks.mini.problem import NAMES, Line, Operand
from graphflow.benchmarks.mini.words import BOXES, PEOPLE, PLURAL, THINGS

SMALL_LIMIT, SMALL_FACTOR, LARGE_LIMIT = 40, 9, 99_999


class Infeasible(Exception):
    """No number fits here: the story is dropped and another one drawn."""


class Story:
    """Sentences and lines of one problem.

    Attributes:
        large: The number regime. Small: numbers and results up to 40, factors up to 9; large: up to 99,999.
        people: Four different names: two who may be asked about, a friend, one who has no part.
        things: The objects of the story, and others for sentences that do not matter.
        holds: What a person holds: a number or a reference to a line.
        quiet: Kinds of `ASIDES` that would make the question ambiguous.
    """

    def __init__(self, rng: random.Random, large: bool):
        self.rng, self.large = rng, large
        self.people = rng.sample(PEOPLE, 4)
        self.person, self.second, self.friend, self.outsider = self.people
        self.things = rng.sample(THINGS, 3)
        self.thing = self.things[0]
        self.box = rng.choice(BOXES)
        self.boxes = PLURAL[self.box]
        self.holds: dict[str, Operand] = {}
        self.quiet: set[str] = set()
        self.sentences: list[tuple[str, bool]] = []
        self._spelt = not large and rng.random() < 0.1
        self._lines: list[Line] = []
        self._results: list[int] = []
        self._kinds: list[str] = []
        row = rng.choice(CONNECTORS)
        skip = rng.randrange(3)
        self._connectors = list(row[skip:] if len(row) > 5 else row)
        self._alone = ""

    # numbers

    def value(self, operand: Operand) -> int:
        """What a number or a reference stands for."""
        return self._results[int(operand[1:])] if isinstance(operand, str) else operand

    def line(self, left: Operand, op: str, right: Operand, kind: str = "") -> str:
        """Adds a line and returns a reference to it.

        Raises:
            Infeasible: The result leaves the number regime, is not positive, a division is not exact, or the line
                only takes back the one before it.
        """
        a, b = self.value(left), self.value(right)
        if op == "/" and (b == 0 or a % b):
            raise Infeasible
        before = self._lines[-1] if self._lines and f"#{len(self._lines) - 1}" in (left, right) else None
        if op == "-" and before and before.op in "+-" and before.left in (left, right):
            raise Infeasible
        result = {"+": a + b, "-": a - b, "*": a * b, "/": a // (b or 1), "mod": a % (b or 1)}[op]
        if not 0 < result <= (LARGE_LIMIT if self.large else SMALL_LIMIT):
            raise Infeasible
        if not self.large and op in "*/" and max(b, result if op == "/" else a) > SMALL_FACTOR:
            raise Infeasible
        self._lines.append(Line(left, op, right))
        self._results.append(result)
        self._kinds.append(kind)
        return f"#{len(self._lines) - 1}"

    def room(self, who: str) -> int:
        """How much may still be added to what somebody holds."""
        return (20_000 if self.large else SMALL_LIMIT) - self.value(self.holds[who])

    def amount(self, limit: int = LARGE_LIMIT) -> int:
        """A number to start with, to add or to take away, at most ``limit``."""
        if not self.large:
            low, high = (2, 13) if self.rng.random() < 0.4 else (3, 31)
        else:
            low, high = self.rng.choice(((100, 1000), (100, 1000), (1000, 5000), (11, 100)))
        high = min(high, limit + 1)
        if high <= low:
            low = 2
        if high <= low:
            raise Infeasible
        return self.rng.randrange(low, high)

    def factors(self, limit: int = LARGE_LIMIT) -> tuple[int, int]:
        """How many times how much, with a product of at most ``limit``."""
        if not self.large:
            limit = min(limit, SMALL_LIMIT)
            if limit < 4:
                raise Infeasible
            first = self.rng.randrange(2, min(SMALL_FACTOR, limit // 2) + 1)
            return first, self.rng.randrange(2, min(SMALL_FACTOR, limit // first) + 1)
        if self.rng.random() < 0.5:
            first, second = self.rng.randrange(12, 100), self.rng.randrange(12, 100)
        else:
            first, second = self.rng.randrange(2, 10), self.rng.randrange(100, 1000)
        if first * second > limit:
            raise Infeasible
        return first, second

    def divisor(self, value: int, low: int = 2) -> int:
        """A small number that divides ``value``."""
        found = [
            k
            for k in range(low, SMALL_FACTOR + 1)
            if value % k == 0 and k < value and (self.large or value // k <= SMALL_FACTOR)
        ]
        if not found:
            raise Infeasible
        return self.rng.choice(found)

    def spell(self, number: int, dozen: bool = False) -> str:
        """A number as it stands in the text; now and then a word."""
        if not self._spelt or number not in NUMBER_WORDS or self.rng.random() < 0.25:
            return str(number)
        return "a dozen" if dozen and number == 12 and self.rng.random() < 0.5 else NUMBER_WORDS[number]

    # sentences

    def fill(self, template: str, **more: str | int) -> str:
        """A template with names, objects and numbers put in."""
        words = {"p": self.person, "q": self.friend, "r": self.outsider, "t": self.thing, "b": self.boxes}
        dozen = "{n} {t}" in template
        return template.format(
            **{**words, **{k: self.spell(v, dozen and k == "n") if isinstance(v, int) else v for k, v in more.items()}}
        )

    def say(self, text: str, bound: bool = False, alone: str = "") -> None:
        """Adds a sentence; a ``bound`` one must follow the sentence before, ``alone`` is the only person in it."""
        self.sentences.append((text[0].upper() + text[1:], bound))
        self._alone = alone

    def clear(self, forms: Sequence[str]) -> str:
        """One of several noun phrases; after a sentence with boxes one that names the things outright."""
        boxed = self.box in self.sentences[-1][0]
        return self.rng.choice([form for form in forms if "{t}" in form or not boxed])

    def connector(self) -> str:
        """When something happens: ``"Then "``, ``"On Monday "``; sometimes nothing."""
        if self._connectors and self.rng.random() < 0.75:
            return self._connectors.pop(0) + " "
        return ""

    def tell(self, who: str, predicate: str, bound: bool = False, others: bool = False) -> None:
        """Adds an event: when, who, what; ``others`` if the predicate names somebody else."""
        start = self.connector()
        subject = who
        if self._alone == who and self.rng.random() < 0.2:
            subject, bound = ("he" if who in HE else "she"), True
            subject = subject if start else subject.capitalize()
        self.say(f"{start}{subject} {predicate}.", bound, "" if others else who)

    def aside(self) -> None:
        """Puts a sentence with a number that does not matter somewhere among the sentences."""
        kind, template = self.rng.choice([a for a in ASIDES if a[0] not in self.quiet])
        number = {
            "age": lambda: self.rng.randrange(8, 70),
            "house": lambda: self.rng.randrange(2, 990 if self.large else 99),
            "date": lambda: self.rng.randrange(2, 29),
            "minutes": lambda: self.rng.randrange(3, 60),
            "price": lambda: self.amount(999),
        }.get(kind, self.amount)()
        self.quiet.add(kind)
        places = [i for i in range(1, len(self.sentences)) if not self.sentences[i][1]] + [len(self.sentences)]
        text = self.fill(template, n=number, u=self.things[self.rng.randrange(1, 3)], p=self.person)
        self.sentences.insert(self.rng.choice(places), (text, False))

    # solution

    def solution(self, final: Operand) -> tuple[tuple[Line, ...], str]:
        """The lines that ``final`` rests on, in order, and their shape without numbers: kinds, operators, wiring."""
        needed: list[int] = []
        waiting: Sequence[Operand] = [final]
        while waiting:
            index = next((int(x[1:]) for x in waiting if isinstance(x, str)), None)
            if index is None:
                break
            waiting = [x for x in waiting if x != f"#{index}"] + [self._lines[index].left, self._lines[index].right]
            needed.append(index)
        order = sorted(set(needed))
        if not 1 <= len(order) <= 6:
            raise Infeasible
        names = {f"#{index}": NAMES[i] for i, index in enumerate(order)}
        lines = tuple(
            Line(names.get(str(x.left), x.left), x.op, names.get(str(x.right), x.right))
            for x in (self._lines[i] for i in order)
        )
        kinds = [self._kinds[i] for i in order if self._kinds[i]]
        wiring = [f"{_slot(x.left)}{x.op}{_slot(x.right)}" for x in lines]
        return lines, f"{' '.join(kinds)}|{' '.join(wiring)}"


def _slot(operand: Operand) -> str:
    return operand if isinstance(operand, str) else "#"
