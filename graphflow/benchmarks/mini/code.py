"""mini-humaneval and mini-mbpp: functions from a grammar of list, string and number operations.

A function is a `Spec` (`code_specs`) of parts (`code_parts`) that each have words, Python and plausible mistakes. Some
words are vague on purpose ("numbers over 5" stands for > and for >=, more often for the first): only the examples
decide, so a first draft can fail its tests and be repaired from what they report.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

from graphflow.benchmarks.mini.code_specs import ARGUMENTS, PLAIN, Spec, draw_spec, neighbours, phrase, remark, source
from graphflow.benchmarks.mini.problem import Problem
from graphflow.benchmarks.mini.words import FUNCTIONS, JOBS, STRINGS

WORDS = [*STRINGS, *"level radar noon madam kayak sun tree apple river onion street tomato elephant cherry".split()]
SECOND_NAMES = "all it one part up values".split()
HIDDEN_TESTS = 5
CASES = 12
HUMANEVAL = {"list": 58, "list_k": 14, "string": 14, "number": 8, "numbers": 6}  # weights of the domains
MBPP = {"list": 22, "list_k": 10, "string": 28, "strings": 14, "number": 14, "numbers": 12}
REMARKS = {
    "list": ("The list is never empty.", "The numbers may be negative.", "The list xs holds whole numbers."),
    "string": ("The text has small letters only.", "The text is never empty.", "There are no blanks."),
    "number": ("Every number given is positive.", "Only whole numbers are given.", "No number given is zero."),
}
_KIND = {"list_k": "list", "strings": "string", "numbers": "number"}

Case = tuple[Any, ...]  # the arguments of a call


@functools.lru_cache(maxsize=16384)
def _compiled(text: str) -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(text, scope)
    return scope["f"]


def compiled(spec: Spec) -> Callable[..., Any]:
    """The function itself: its source is this package's own, so it runs in this process."""
    return _compiled(source(spec, "f"))


def _row(rng: random.Random, spec: Spec, k: int) -> list[int]:
    """A list in which thresholds stand, so that boundaries show."""
    row = [rng.randrange(-9, 13) for _ in range(rng.randrange(4, 7))]
    if rng.random() < 0.6:
        row[rng.randrange(len(row))] = rng.choice(row)
    places = rng.sample(range(len(row)), 2)
    for place, value in zip(places, spec.parts[0].params, strict=False):
        if rng.random() < 0.8:
            row[place] = k if value == "k" else int(value)
    return row


def _number_case(rng: random.Random, spec: Spec) -> Case:
    head = spec.parts[0]
    if spec.domain == "numbers":
        a = rng.randrange(1, 25)
        if head.name in ("rest", "quotient_down", "quotient_up", "divides"):
            b = rng.randrange(2, 9)
            return (a * b if rng.random() < 0.3 else a + b, b)
        return (
            (a, a + rng.randrange(2, 8)) if "range" in head.name or "inner" in head.name else (a, rng.randrange(1, 25))
        )
    if head.name in ("digit_sum", "digits", "digit_max", "digit_min", "mirror"):
        return (rng.randrange(10, rng.choice((100, 1000, 10000))),)
    if head.params and head.name != "power":
        k = int(head.params[0])
        n = rng.randrange(2, 7) * k + (rng.randrange(k) if rng.random() < 0.7 else 0)
        return (min(n, 20),)
    return (rng.randrange(2, 13 if head.name == "power" else 31),)


def _text_case(rng: random.Random, spec: Spec) -> Case:
    letters = [value for part in spec.parts for value in part.params if isinstance(value, str)]
    s = rng.choice(
        [word for word in WORDS if all(c in word for c in letters)] or WORDS if rng.random() < 0.7 else WORDS
    )
    if spec.domain == "string":
        return (s,)
    likes: tuple[Callable[[str], Any], ...] = (len, lambda w: w[0], lambda w: w[-1], lambda w: True)
    like = rng.choice(likes)
    return s, rng.choice([word for word in WORDS if word != s and like(word) == like(s)] or [s])


def cases(spec: Spec, rng: random.Random, count: int = CASES) -> list[Case]:
    """Different arguments to test with, at most ``count``."""
    found: dict[str, Case] = {}
    for _ in range(count):
        if spec.domain in ("list", "list_k"):
            k = rng.randrange(2, 6)
            row = _row(rng, spec, k)
            case: Case = (row, k) if spec.domain == "list_k" else (row,)
        else:
            case = _text_case(rng, spec) if spec.domain in ("string", "strings") else _number_case(rng, spec)
        found[repr(case)] = case
    return list(found.values())


def _split(spec: Spec, name: str, rng: random.Random) -> tuple[list[tuple[str, str]], list[Spec]] | None:
    """Calls with their values, two to show and then the hidden ones, and the mistakes that they tell from the function.

    None if the function gives the same on most arguments, if a part of it makes no difference, or if what its words
    leave open is not decided by the first call.
    """
    arguments = cases(spec, rng)
    function = compiled(spec)
    values = [repr(function(*case)) for case in arguments]
    if len(values) < HIDDEN_TESTS + 2 or len(set(values)) < 2:
        return None
    others = neighbours(spec, rng)
    missed = []  # for each mistake the cases that show it
    for other in others:
        wrong = compiled(other)
        missed.append({i for i, case in enumerate(arguments) if repr(wrong(*case)) != values[i]})
    if spec.vague and not missed[0]:
        return None
    first = max(missed[0] if spec.vague else range(len(arguments)), key=lambda i: (sum(i in m for m in missed), -i))
    rest = [i for i in range(len(arguments)) if i != first]
    hidden: list[int] = []
    alive = [m for m in missed if m]
    while len(hidden) < HIDDEN_TESTS:
        best = max(rest, key=lambda i: (sum(i in m for m in alive), values[i] not in [values[h] for h in hidden], -i))
        rest.remove(best)
        hidden.append(best)
        alive = [m for m in alive if best not in m]
    kept = [other for other, m in zip(others, missed, strict=True) if any(i in m for i in hidden)]
    if spec.vague and not missed[0] & set(hidden):
        return None
    results = [values[i] for i in hidden]
    if len(set(results)) < 2 or sum(value in ("[]", "''", "0") for value in results) > 2:
        return None
    for index, part in enumerate(spec.parts):
        told = any(len(o.parts) < len(spec.parts) or o.parts[index].name != part.name for o in kept)
        if part.name not in PLAIN and not told:
            return None
    shown = [first, rest[0], *hidden]
    return [(f"{name}({', '.join(map(repr, arguments[i]))})", values[i]) for i in shown], kept


def _drawn(rng: random.Random, weights: dict[str, int]) -> tuple[Spec, str, list[tuple[str, str]], list[Spec]]:
    """A function, its name, its calls and mistakes."""
    while True:
        spec = draw_spec(rng, rng.choices(list(weights), list(weights.values()))[0])
        name = rng.choice(FUNCTIONS)
        name += f"_{rng.choice(SECOND_NAMES)}" if rng.random() < 0.4 else ""
        if found := _split(spec, name, rng):
            return spec, name, *found


def _description(rng: random.Random, spec: Spec, sentence: str) -> str:
    """The sentence, in every fifth task with a remark before or after it that changes nothing."""
    if rng.random() >= 0.2:
        return sentence
    job = rng.choice(JOBS)
    habit = f"{'An' if job[0] in 'aeiou' else 'A'} {job} uses it every day."
    said = rng.choice((*REMARKS[_KIND.get(spec.domain, spec.domain)], habit, "Speed does not matter here."))
    return f"{said} {sentence}" if rng.random() < 0.5 else f"{sentence} {said}"


def _problem(text: str, spec: Spec, name: str, calls: list[tuple[str, str]], shown: int, wrong: list[Spec]) -> Problem:
    asserts = [f"assert {call} == {value}" for call, value in calls]
    return Problem(
        text=text,
        answer=source(spec, name),
        family=spec.domain,
        level=spec.level,
        structure=spec.structure,
        programmable=False,
        entry_point=name,
        visible_tests=tuple(asserts[:shown]),
        hidden_tests=tuple(asserts[2:]),
        mutants=tuple((source(other, name), remark(other, spec)) for other in wrong),
        rare=spec.rare,
    )


def make_humaneval(rng: random.Random) -> Problem:
    """A signature with a docstring and two examples; the body is asked for."""
    spec, name, calls, wrong = _drawn(rng, HUMANEVAL)
    verb = rng.choice(("Return", "Give back", "Compute"))
    said = _description(rng, spec, f"{verb} {phrase(spec, rng)}.")
    shown = "\n".join(f"    >>> {call}\n    {value}" for call, value in calls[:2])
    text = f'def {name}({ARGUMENTS[spec.domain]}):\n    """{said}\n{shown}\n    """'
    return _problem(text, spec, name, calls, 2, wrong)


def make_mbpp(rng: random.Random) -> Problem:
    """A sentence and a function name; every second task, and each whose words are vague, shows one example."""
    spec, name, calls, wrong = _drawn(rng, MBPP)
    frames = (
        "Write a function {} that returns {}.",
        "Write a Python function {} which gives {}.",
        "Define a function {} to find {}.",
    )
    said = rng.choice(frames).format(f"{name}({ARGUMENTS[spec.domain]})", phrase(spec, rng))
    text = _description(rng, spec, said)
    if shows := spec.vague or rng.random() < 0.5:
        text += f" For example, {calls[0][0]} is {calls[0][1]}."
    return _problem(text, spec, name, calls, int(shows), wrong)
