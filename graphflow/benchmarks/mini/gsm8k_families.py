"""Story plans of mini-gsm8k: which openings, events and question make a problem."""

from __future__ import annotations

from collections.abc import Callable

from graphflow.benchmarks.mini.gsm8k_events import CHANGES, STARTS, TRADES, pick, purse, transfer
from graphflow.benchmarks.mini.gsm8k_story import Story
from graphflow.benchmarks.mini.gsm8k_words import DIFFERENCE, HAVE, TOGETHER
from graphflow.benchmarks.mini.problem import Operand

Plan = Callable[[Story], tuple[Operand, str]]  # tells the story; gives what is asked for, and the question


def _count(s: Story, weights: tuple[int, ...]) -> int:
    return s.rng.choices(range(len(weights)), weights)[0]


def chain(s: Story) -> tuple[Operand, str]:
    """What one person holds changes step by step; at the end perhaps packed, compared or short of a goal."""
    who = s.person
    pick(s, STARTS)(s, who)
    start = s.holds[who]
    for _ in range(_count(s, (0, 5, 7, 3))):
        pick(s, CHANGES)(s, who)
    return _closing(s, start) if s.rng.random() < 0.4 else (s.holds[who], s.fill(s.rng.choice(HAVE)))


def _closing(s: Story, start: Operand) -> tuple[Operand, str]:
    now = s.holds[s.person]
    value = s.value(now)
    kind = s.rng.choice(("split", "full", "growth", "growth", "need", "need"))
    if kind == "split":
        k = s.divisor(value)
        form = s.rng.choice(("puts all the {t} into {n} {b}, the same number into each", "fills {n} {b} equally"))
        s.tell(s.person, s.fill(form, n=k))
        return s.line(now, "/", k, kind), s.fill(f"How many {{t}} are in each {s.box}?")
    if kind == "full":
        k = s.divisor(value)
        s.tell(s.person, s.fill("packs all the {t} into {b} of {n}", n=k))
        return s.line(now, "/", k, kind), s.fill(
            s.rng.choice(("How many {b} are full?", "How many {b} does {p} need?"))
        )
    if kind == "growth":
        if value > s.value(start):
            return s.line(now, "-", start, "more"), s.fill("How many more {t} does {p} have now than at the start?")
        return s.line(start, "-", now, "fewer"), s.fill("How many fewer {t} does {p} have now than at the start?")
    goal = value + s.amount(s.room(s.person))
    gap = s.line(goal, "-", now, kind)
    s.say(s.fill(s.rng.choice(("{p} wants to have {n} {t}.", "The goal of {p} is to have {n} {t}.")), n=goal))
    return gap, s.fill(s.rng.choice(("How many more {t} does {p} need?", "How many {t} are missing?")))


def _relation(s: Story, who: str, other: str) -> None:
    """Says what ``who`` holds by what ``other`` holds."""
    base = s.holds[other]
    kind = s.rng.choice(("more", "fewer", "times", "half"))
    if kind == "times":
        k = s.rng.randrange(2, 7)
        s.holds[who] = s.line(base, "*", k, kind)
        often = "twice" if k == 2 else "{n} times"
        return s.say(s.fill("{p} has " + often + " as many {t} as {q}.", n=k, p=who, q=other))
    if kind == "half":
        s.holds[who] = s.line(base, "/", 2, kind)
        return s.say(s.fill("{p} has half as many {t} as {q}.", p=who, q=other))
    n = s.amount(s.room(other) if kind == "more" else s.value(base) - 1)
    s.holds[who] = s.line(base, "+" if kind == "more" else "-", n, kind)
    form = s.rng.choice((f"{{p}} has {{n}} {kind} {{t}} than {{q}}.", f"{{p}} has {{n}} {{t}} {kind} than {{q}}."))
    return s.say(s.fill(form, n=n, p=who, q=other))


def _asked_of_two(s: Story, first: str, second: str) -> tuple[Operand, str]:
    """Both together, or how much one is ahead."""
    if s.rng.random() < 0.5:
        if s.rng.random() < 0.5:
            first, second = second, first
        question = s.fill(s.rng.choice(TOGETHER), p=f"{first} and {second}")
        return s.line(s.holds[first], "+", s.holds[second], "total"), question
    if s.value(s.holds[first]) < s.value(s.holds[second]):
        first, second = second, first
    question = s.fill(s.rng.choice(DIFFERENCE), p=first, q=second)
    return s.line(s.holds[first], "-", s.holds[second], "gap"), question


def compare(s: Story) -> tuple[Operand, str]:
    """Two or three people, each known by another one; one, some or all of them are asked about."""
    s.friend = s.rng.choice(("a friend", "a neighbour"))
    first, second, last = s.second, s.person, s.people[2]
    pick(s, STARTS)(s, first)
    _relation(s, second, first)
    three = s.rng.random() < 0.45
    if three:
        _relation(s, last, s.rng.choice((first, second)))
    asked = last if three else second
    if s.rng.random() < 0.45:
        pick(s, CHANGES)(s, asked)
    choice = s.rng.random()
    if choice < 0.4:
        return s.holds[asked], s.fill(s.rng.choice(HAVE), p=asked)
    if three and choice < 0.6:
        both = s.line(s.holds[first], "+", s.holds[second])
        question = s.fill(s.rng.choice(TOGETHER), p=f"{first}, {second} and {last}")
        return s.line(both, "+", s.holds[last], "total"), question
    return _asked_of_two(s, asked, s.rng.choice((first, second)) if three else first)


def pair(s: Story) -> tuple[Operand, str]:
    """Two people with things of the same sort; events touch one or both; one or both are asked about."""
    first, second = s.person, s.second
    for who in (first, second):
        pick(s, STARTS)(s, who)
    events = 1 + _count(s, (5, 5, 2))
    at = s.rng.randrange(events)
    for index in range(events):
        who = s.rng.choice((first, second))
        (transfer if index == at and s.rng.random() < 0.8 else pick(s, CHANGES))(s, who)
    if s.rng.random() < 0.6:
        asked = s.rng.choice((first, second))
        return s.holds[asked], s.fill(s.rng.choice(HAVE), p=asked)
    return _asked_of_two(s, first, second)


def money(s: Story) -> tuple[Operand, str]:
    """Somebody buys, sells, pays and earns; asked are the money left, what is missing, or what it buys."""
    s.quiet.add("object")
    purse(s, s.person)
    for _ in range(1 + _count(s, (4, 5, 3))):
        pick(s, TRADES)(s, s.person)
    now, choice = s.holds[s.person], s.rng.random()
    if choice < 0.2:
        goal = s.value(now) + s.amount(s.room(s.person))
        s.say(s.fill(s.rng.choice(("{p} wants a bike that costs {n} dollars.", "A bike costs {n} dollars.")), n=goal))
        return s.line(goal, "-", now, "need"), s.fill("How many more dollars does {p} need for the bike?")
    if choice < 0.35:
        k = s.divisor(s.value(now))
        question = s.fill(f"How many {s.things[0]} at {{n}} dollars each can {{p}} buy with the rest?", n=k)
        return s.line(now, "/", k, "afford"), question
    asks = (
        "How many dollars does {p} have now?",
        "How many dollars are left with {p}?",
        "How much money does {p} have in the end?",
        "What is the number of dollars that {p} has in the end?",
    )
    return now, s.fill(s.rng.choice(asks))


PLANS: dict[str, tuple[Plan, int]] = {
    "chain": (chain, 30),
    "compare": (compare, 20),
    "pair": (pair, 16),
    "money": (money, 18),
}
