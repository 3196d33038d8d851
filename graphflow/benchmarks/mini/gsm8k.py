"""mini-gsm8k: word problems of one to four steps with small and large numbers."""

from __future__ import annotations

import random

from graphflow.benchmarks.mini.problem import NAMES, Line, Problem, evaluate
from graphflow.benchmarks.mini.words import BOXES, PEOPLE, PLURAL, THINGS

GAIN = ("buys {n} more", "finds {n} more", "gets {n} from {q}", "picks up {n} more", "wins {n} in a game")
LOSE = ("gives {n} to {q}", "loses {n}", "sells {n}", "uses {n}", "breaks {n} by accident")
ASK = (
    "How many {t} does {p} have now?",
    "How many {t} are left with {p}?",
    "What is the number of {t} that {p} has in the end?",
)
ANSWER_LINE = "End with the number."


class _Numbers:
    """Draws the numbers of one problem: small ones, or large ones that are hard to work out by hand."""

    def __init__(self, rng: random.Random, large: bool):
        self.rng, self.large = rng, large

    def value(self) -> int:
        return self.rng.randrange(120, 980) if self.large else self.rng.randrange(3, 40)

    def factor(self) -> int:
        return self.rng.randrange(12, 99) if self.large else self.rng.randrange(2, 10)


def _changes(
    rng: random.Random, numbers: _Numbers, person: str, thing: str, lines: list[Line], count: int
) -> list[str]:
    """Sentences in which somebody gains and loses things; appends to ``lines``."""
    pronoun = rng.choice(("Then {}", "After that {}", "Later {}", "{}"))
    sentences = []
    for _ in range(count):
        now = evaluate(tuple(lines))[-1][3]
        other = rng.choice([p for p in PEOPLE if p != person])
        amount = numbers.value()
        gains = rng.random() < 0.5 or amount >= now
        phrase = rng.choice(GAIN if gains else LOSE).format(n=amount, q=other)
        lines.append(Line(NAMES[len(lines) - 1], "+" if gains else "-", amount))
        sentences.append(f"{pronoun.format(person)} {phrase}.")
    return sentences


def _chain(rng: random.Random, numbers: _Numbers, person: str, thing: str) -> tuple[list[str], list[Line], str]:
    start, first = numbers.value(), numbers.value()
    gains = rng.random() < 0.5 or first >= start
    other = rng.choice([p for p in PEOPLE if p != person])
    phrase = rng.choice(GAIN if gains else LOSE).format(n=first, q=other)
    lines = [Line(start, "+" if gains else "-", first)]
    opening = rng.choice(("{p} has {n} {t}.", "{p} owns {n} {t}.", "There are {n} {t} on the desk of {p}."))
    sentences = [opening.format(p=person, n=start, t=thing), f"{person} {phrase}."]
    sentences += _changes(rng, numbers, person, thing, lines, rng.randrange(0, 3))
    return sentences, lines, rng.choice(ASK)


def _boxes(rng: random.Random, numbers: _Numbers, person: str, thing: str) -> tuple[list[str], list[Line], str]:
    box, each, many = rng.choice(BOXES), numbers.factor(), numbers.factor()
    lines = [Line(many, "*", each)]
    opening = rng.choice(
        ("{p} has {m} {b} with {e} {t} in each.", "{p} fills {m} {b} and puts {e} {t} into every one.")
    ).format(p=person, m=many, b=PLURAL[box], e=each, t=thing)
    return [opening, *_changes(rng, numbers, person, thing, lines, rng.randrange(0, 3))], lines, rng.choice(ASK)


def _more_than(rng: random.Random, numbers: _Numbers, person: str, thing: str) -> tuple[list[str], list[Line], str]:
    other, base, more = rng.choice([p for p in PEOPLE if p != person]), numbers.value(), numbers.value()
    lines = [Line(base, "+", more), Line(base, "+", "a")]
    sentences = [f"{other} has {base} {thing}.", f"{person} has {more} {thing} more than {other}."]
    return sentences, lines, rng.choice(("How many {t} do they have together?", "How many {t} do both have in all?"))


def _times(rng: random.Random, numbers: _Numbers, person: str, thing: str) -> tuple[list[str], list[Line], str]:
    other, base, times = rng.choice([p for p in PEOPLE if p != person]), numbers.factor(), rng.randrange(2, 7)
    lines = [Line(base, "*", times)]
    sentences = [f"{other} has {base} {thing}.", f"{person} has {times} times as many {thing} as {other}."]
    return sentences + _changes(rng, numbers, person, thing, lines, rng.randrange(0, 2)), lines, rng.choice(ASK)


def _share(rng: random.Random, numbers: _Numbers, person: str, thing: str) -> tuple[list[str], list[Line], str]:
    friends, each, extra = rng.randrange(2, 10), numbers.factor(), numbers.factor()
    total = friends * each
    lines = [Line(total, "/", friends), Line("a", "+", extra)]
    sentences = [f"{total} {thing} are shared equally by {friends} people, and {person} is one of them."]
    sentences.append(f"{person} already had {extra} {thing}.")
    return sentences, lines, rng.choice(ASK)


FAMILIES = {"chain": _chain, "boxes": _boxes, "more_than": _more_than, "times": _times, "share": _share}


def make(rng: random.Random) -> Problem:
    """One word problem."""
    family = rng.choice(list(FAMILIES))
    large = rng.random() < 0.4
    person, thing = rng.choice(PEOPLE), rng.choice(THINGS)
    sentences, lines, ask = FAMILIES[family](rng, _Numbers(rng, large), person, thing)
    text = " ".join([*sentences, ask.format(p=person, t=thing), ANSWER_LINE])
    answer = str(evaluate(tuple(lines))[-1][3])
    return Problem(text, answer, family, len(lines) + (2 if large else 0), tuple(lines))
