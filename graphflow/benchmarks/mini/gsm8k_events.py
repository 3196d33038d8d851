"""Events of mini-gsm8k: each tells a sentence and changes what somebody holds."""

from __future__ import annotations

from collections.abc import Callable

from graphflow.benchmarks.mini.gsm8k_story import SMALL_LIMIT, Infeasible, Story
from graphflow.benchmarks.mini.gsm8k_words import (
    BOXES_AND_LOOSE,
    BOXES_OF,
    GAIN,
    GOODS,
    HALF,
    LOSE,
    MONEY_OPENINGS,
    OPENINGS,
    TIMES,
    TIMES_TAILS,
    TWO_PARTS,
    WORK,
)

Event = Callable[[Story, str], None]


def _verb(s: Story, gains: bool) -> str:
    return s.rng.choice(GAIN if gains else LOSE)[0]


def has(s: Story, who: str) -> None:
    """Somebody has a number of things."""
    n = s.amount(3000 if s.large else SMALL_LIMIT)
    s.holds[who] = n
    s.say(s.fill(s.rng.choice(OPENINGS), n=n, p=who), alone=who)


def parts(s: Story, who: str) -> None:
    """Somebody has things of two sorts."""
    n, m = s.amount(3000 if s.large else 20), s.amount(3000 if s.large else 20)
    s.holds[who] = s.line(n, "+", m, "parts")
    s.say(s.fill(s.rng.choice(TWO_PARTS), n=n, m=m, p=who), alone=who)


def boxes(s: Story, who: str) -> None:
    """Somebody has n boxes with m things in each."""
    n, m = s.factors()
    s.holds[who] = s.line(n, "*", m, "boxes")
    s.say(s.fill(s.rng.choice(BOXES_OF), n=n, m=m, p=who), alone=who)


def boxes_and_loose(s: Story, who: str) -> None:
    """Somebody has n boxes with m things in each, and some more."""
    n, m = s.factors(9000 if s.large else SMALL_LIMIT - 4)
    total = s.line(n, "*", m)
    k = s.amount(999 if s.large else SMALL_LIMIT - n * m)
    s.holds[who] = s.line(total, "+", k, "boxes+")
    s.say(s.fill(s.rng.choice(BOXES_AND_LOOSE), n=n, m=m, k=k, p=who), alone=who)


def gain(s: Story, who: str) -> None:
    """Somebody gets things."""
    n = s.amount(s.room(who))
    s.holds[who] = s.line(s.holds[who], "+", n, "gain")
    form = s.rng.random()
    if form < 0.15:
        s.say(s.connector() + s.fill("{q} gives {n} {t} to {p}.", n=n, p=who))
    elif form < 0.25:
        s.tell(who, s.fill("gets {n} {t} from {q}", n=n), others=True)
    elif form < 0.32:
        s.say(s.connector() + s.fill("{q} brings {n} {t} for {p}.", n=n, p=who))
    else:
        verb, tails = s.rng.choice(GAIN)
        what = s.clear(("{n} more {t}", "{n} {t}", "another {n} {t}", "{n} new {t}", "{n} more"))
        s.tell(who, s.fill(f"{verb} {what}{s.rng.choice(tails)}", n=n), bound="{t}" not in what)


def lose(s: Story, who: str) -> None:
    """Somebody parts with things."""
    n = s.amount(s.value(s.holds[who]) - 1)
    s.holds[who] = s.line(s.holds[who], "-", n, "lose")
    form = s.rng.random()
    if form < 0.2:
        s.tell(who, s.fill("gives {n} {t} to {q}", n=n), others=True)
    elif form < 0.28:
        s.say(s.connector() + s.fill("{q} takes {n} {t} from {p}.", n=n, p=who))
    else:
        verb, tails = s.rng.choice(LOSE)
        what = s.clear(("{n} {t}", "{n} of the {t}", "{n} of them"))
        s.tell(who, s.fill(f"{verb} {what}{s.rng.choice(tails)}", n=n), bound="{t}" not in what)


def times(s: Story, who: str) -> None:
    """Somebody doubles or triples the number of things."""
    if s.value(s.holds[who]) > 9000:
        raise Infeasible
    k = s.rng.choice((2, 2, 3))
    s.holds[who] = s.line(s.holds[who], "*", k, "times")
    s.tell(who, s.fill(f"{TIMES[k]} the number of {{t}}{s.rng.choice(TIMES_TAILS)}"))


def half(s: Story, who: str) -> None:
    """Somebody parts with half of the things."""
    s.holds[who] = s.line(s.holds[who], "/", 2, "half")
    s.tell(who, s.fill(s.rng.choice(HALF)), others=True)


def _packs(s: Story, who: str, gains: bool) -> None:
    n, m = s.factors(s.room(who) if gains else s.value(s.holds[who]) - 1)
    total = s.line(n, "*", m)
    s.holds[who] = s.line(s.holds[who], "+" if gains else "-", total, "packs" + "-+"[gains])
    what = s.rng.choice(("{n} {b} of {m} {t} each", "{n} {b} with {m} {t} in each"))
    s.tell(who, s.fill(f"{_verb(s, gains)} {what}", n=n, m=m))


def _rate(s: Story, who: str, gains: bool) -> None:
    days, m = s.factors(s.room(who) if gains else s.value(s.holds[who]) - 1)
    total = s.line(days, "*", m)
    s.holds[who] = s.line(s.holds[who], "+" if gains else "-", total, "rate" + "-+"[gains])
    verb = _verb(s, gains)
    form = s.rng.randrange(3)
    if form == 0:
        s.say(s.fill(f"Every day for {{n}} days {who} {verb} {{m}} {{t}}.", n=days, m=m), alone=who)
    elif form == 1:
        s.tell(who, s.fill(f"{verb} {{m}} {{t}} a day for {{n}} days", n=days, m=m))
    else:
        s.say(s.fill(f"For {{n}} days {who} {verb} {{m}} {{t}} every day.", n=days, m=m), alone=who)


def packs_gain(s: Story, who: str) -> None:
    """Somebody gets n boxes of m things each."""
    _packs(s, who, True)


def packs_lose(s: Story, who: str) -> None:
    """Somebody parts with n boxes of m things each."""
    _packs(s, who, False)


def rate_gain(s: Story, who: str) -> None:
    """Somebody gets m things a day for n days."""
    _rate(s, who, True)


def rate_lose(s: Story, who: str) -> None:
    """Somebody parts with m things a day for n days."""
    _rate(s, who, False)


def transfer(s: Story, who: str) -> None:
    """One of two people gives things to the other one."""
    other = s.second if who == s.person else s.person
    n = s.amount(min(s.value(s.holds[who]) - 1, s.room(other)))
    s.holds[who] = s.line(s.holds[who], "-", n, "give")
    s.holds[other] = s.line(s.holds[other], "+", n, "take")
    form = s.rng.choice(("{p} gives {n} {t} to {o}.", "{o} gets {n} {t} from {p}.", "{p} hands {n} {t} over to {o}."))
    s.say(s.connector() + s.fill(form, n=n, p=who, o=other))


def purse(s: Story, who: str) -> None:
    """Somebody has money."""
    n = s.amount(5000) if not s.large else s.rng.randrange(1000, 9000)
    s.holds[who] = n
    s.say(s.fill(s.rng.choice(MONEY_OPENINGS), n=n, p=who), alone=who)


def _trade(s: Story, who: str, verb: str, op: str, limit: int, kind: str) -> None:
    n, m = s.factors(limit)
    if s.large and m < n < 100:
        n, m = m, n
    s.holds[who] = s.line(s.holds[who], op, s.line(n, "*", m), kind)
    form = s.rng.choice((f"{verb} {{n}} {{t}} for {{m}} dollars each", f"{verb} {{n}} {{t}} at {{m}} dollars each"))
    thing = s.rng.choice(s.things)
    s.tell(who, s.fill(form, n=n, m=m, t=thing))


def buy(s: Story, who: str) -> None:
    """Somebody buys n things at a price."""
    _trade(s, who, "buys", "-", s.value(s.holds[who]) - 1, "buy")


def sell(s: Story, who: str) -> None:
    """Somebody sells n things at a price."""
    _trade(s, who, "sells", "+", s.room(who), "sell")


def pay(s: Story, who: str) -> None:
    """Somebody pays for one thing."""
    n = s.amount(s.value(s.holds[who]) - 1)
    s.holds[who] = s.line(s.holds[who], "-", n, "pay")
    form = s.rng.choice(
        (f"pays {{n}} dollars for {s.rng.choice(GOODS)}", f"buys {s.rng.choice(GOODS)} for {{n}} dollars")
    )
    s.tell(who, s.fill(form, n=n))


def earn(s: Story, who: str) -> None:
    """Somebody gets money."""
    n = s.amount(s.room(who))
    s.holds[who] = s.line(s.holds[who], "+", n, "earn")
    if s.rng.random() < 0.35:
        s.say(s.connector() + s.fill("{q} gives {n} dollars to {p}.", n=n, p=who))
    else:
        s.tell(who, s.fill(f"earns {{n}} dollars {s.rng.choice(WORK)}", n=n))


def wage(s: Story, who: str) -> None:
    """Somebody earns m dollars a day for n days."""
    days, m = s.factors(s.room(who))
    s.holds[who] = s.line(s.holds[who], "+", s.line(days, "*", m), "wage")
    form = s.rng.choice(("earns {m} dollars a day for {n} days", "works {n} days and earns {m} dollars a day"))
    s.tell(who, s.fill(form, n=days, m=m))


STARTS: dict[Event, int] = {has: 10, parts: 4, boxes: 5, boxes_and_loose: 2}
CHANGES: dict[Event, int] = {
    gain: 24, lose: 24, times: 8, half: 8, packs_gain: 9, packs_lose: 6, rate_gain: 7, rate_lose: 6,
}  # fmt: skip
TRADES: dict[Event, int] = {buy: 10, pay: 6, sell: 6, earn: 6, wage: 5}


def pick(s: Story, events: dict[Event, int]) -> Event:
    """One of several events by weight."""
    return s.rng.choices(list(events), list(events.values()))[0]
