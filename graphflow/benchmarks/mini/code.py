"""mini-humaneval and mini-mbpp: functions from a small grammar of list, string and number operations.

A function is a `Spec`: parts that each have a phrase, a Python expression and neighbours (wrong but plausible
replacements). Some phrases are ambiguous on purpose ("numbers over 5" stands for > and for >=): only the examples
decide, so a first draft can fail its tests and be repaired.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from graphflow.benchmarks.mini.problem import Problem
from graphflow.benchmarks.mini.words import FUNCTIONS, STRINGS


@dataclass(frozen=True)
class Spec:
    """A function of the grammar.

    Attributes:
        domain: ``list``, ``string`` or ``number``.
        parts: Names of the operations, in order, each with its parameter.
    """

    domain: str
    parts: tuple[tuple[str, Any], ...]


# name -> (phrase, Python). In both "k" stands for the parameter.
PREDICATES = {
    "all": ("numbers", ""),
    "even": ("even numbers", "x % 2 == 0"),
    "odd": ("odd numbers", "x % 2 == 1"),
    "positive": ("positive numbers", "x > 0"),
    "negative": ("negative numbers", "x < 0"),
    "gt": ("numbers over {k}", "x > {k}"),
    "ge": ("numbers over {k}", "x >= {k}"),
    "lt": ("numbers under {k}", "x < {k}"),
    "le": ("numbers under {k}", "x <= {k}"),
    "divisible": ("multiples of {k}", "x % {k} == 0"),
}
MAPS = {
    "same": ("", "x"),
    "square": ("squares of the", "x * x"),
    "times": ("{k} times the", "x * {k}"),
    "plus": ("{k} plus the", "x + {k}"),
}
REDUCERS = {
    "sum": ("the sum of the {}", "sum({})"),
    "count": ("how many {} there are", "len([{}])"),
    "max": ("the largest of the {}", "max([{}], default=0)"),
    "min": ("the smallest of the {}", "min([{}], default=0)"),
    "list": ("a list of the {}", "[{}]"),
    "up": ("the {} in order", "sorted([{}])"),
    "down": ("the {} in order", "sorted([{}], reverse=True)"),
}
STRING = {
    "remove": ("without every '{k}'", "{s}.replace('{k}', '')"),
    "reverse": ("backwards", "{s}[::-1]"),
    "upper": ("in capital letters", "{s}.upper()"),
    "first": ("cut to its first {k} letters", "{s}[:{k}]"),
    "last": ("cut to its last {k} letters", "{s}[-{k}:]"),
    "repeat": ("repeated {k} times", "({s} * {k})"),
    "double": ("with '{k}' doubled", "{s}.replace('{k}', '{k}{k}')"),
}
NUMBER = {
    "digits": ("the sum of the digits of n", "sum(int(d) for d in str(n))"),
    "total": ("the sum of the numbers from 1 to n", "sum(range(1, n + 1))"),
    "divisors": ("how many numbers divide n", "len([d for d in range(1, n + 1) if n % d == 0])"),
    "power": ("n to the power of {k}", "n ** {k}"),
    "length": ("how many digits n has", "len(str(n))"),
    "multiple": ("whether n is a multiple of {k}", "n % {k} == 0"),
}
TAILS = {"none": ("", "{}"), "add": (", plus {k}", "{} + {k}"), "scale": (", times {k}", "({}) * {k}")}
NEIGHBOURS = {
    "gt": ("ge",), "ge": ("gt",), "lt": ("le",), "le": ("lt",), "even": ("odd",), "odd": ("even",),
    "positive": ("negative", "all"), "negative": ("positive",), "all": ("even", "positive"), "divisible": ("all",),
    "same": ("square",), "square": ("same",), "times": ("plus", "same"), "plus": ("times", "same"),
    "sum": ("count", "max"), "count": ("sum",), "max": ("min",), "min": ("max",), "list": ("up",),
    "up": ("down",), "down": ("up",), "remove": ("double",), "double": ("remove",), "reverse": ("upper",),
    "upper": ("reverse",), "first": ("last",), "last": ("first",), "repeat": ("first",), "digits": ("length",),
    "length": ("digits",), "total": ("divisors",), "divisors": ("total",), "power": ("multiple",),
    "multiple": ("power",), "none": ("add",), "add": ("scale", "none"), "scale": ("add", "none"),
}  # fmt: skip
AMBIGUOUS = {"gt", "ge", "lt", "le", "up", "down"}
ARGUMENT = {"list": "xs", "string": "s", "number": "n"}


def _parameter(rng: random.Random, name: str) -> Any:
    if name in ("remove", "double"):
        return rng.choice("aeionrt")
    if name in ("power", "repeat"):
        return rng.randrange(2, 5)
    if name == "divisible":
        return rng.randrange(3, 6)
    return rng.randrange(2, 10)


def _pick(rng: random.Random, table: dict[str, Any]) -> tuple[str, Any]:
    name = rng.choice(list(table))
    return name, _parameter(rng, name)


def list_spec(rng: random.Random, simple: bool = False) -> Spec:
    """A predicate, a map and a reducer over a list of numbers."""
    first = _pick(rng, PREDICATES)
    second = ("same", 0) if simple or rng.random() < 0.4 else _pick(rng, MAPS)
    third = _pick(rng, REDUCERS)
    return Spec("list", (first, ("same", 0) if third[0] == "count" else second, third))


def string_spec(rng: random.Random) -> Spec:
    """One or two operations on a string."""
    names = rng.sample(list(STRING), rng.choice((1, 2, 2)))
    return Spec("string", tuple((name, _parameter(rng, name)) for name in names))


def number_spec(rng: random.Random) -> Spec:
    """One operation on a number, and perhaps something added or multiplied."""
    head = _pick(rng, NUMBER)
    tail = ("none", 0) if head[0] == "multiple" else _pick(rng, TAILS)
    return Spec("number", (head, tail))


def phrase(spec: Spec) -> str:
    """What the function returns, in words."""
    if spec.domain == "list":
        (p, k), (m, j), (r, _) = spec.parts
        inner = " ".join(filter(None, (MAPS[m][0].format(k=j), PREDICATES[p][0].format(k=k)))) + " in xs"
        return REDUCERS[r][0].format(inner)
    if spec.domain == "string":
        return "s " + " and then ".join(STRING[name][0].format(k=k) for name, k in spec.parts)
    (head, k), (tail, j) = spec.parts
    return NUMBER[head][0].format(k=k) + TAILS[tail][0].format(k=j)


def expression(spec: Spec) -> str:
    """The Python expression of a spec over its argument."""
    if spec.domain == "list":
        (p, k), (m, j), (r, _) = spec.parts
        condition = PREDICATES[p][1].format(k=k)
        inner = f"{MAPS[m][1].format(k=j)} for x in xs" + (f" if {condition}" if condition else "")
        return REDUCERS[r][1].format(inner)
    if spec.domain == "string":
        text = "s"
        for name, k in spec.parts:
            text = STRING[name][1].format(s=text, k=k)
        return text
    (head, k), (tail, j) = spec.parts
    return TAILS[tail][1].format(NUMBER[head][1].format(k=k), k=j)


def source(spec: Spec, name: str) -> str:
    """The whole function."""
    return f"def {name}({ARGUMENT[spec.domain]}):\n    return {expression(spec)}"


def compiled(spec: Spec) -> Callable[[Any], Any]:
    """The function itself: the source is this module's own, so it runs in this process."""
    return eval(f"lambda {ARGUMENT[spec.domain]}: {expression(spec)}")


def remark(old: Spec, new: Spec) -> str:
    """One sentence that says what to change to get from ``old`` to ``new``."""
    index = next(i for i, (a, b) in enumerate(zip(old.parts, new.parts, strict=True)) if a != b)
    name, k = new.parts[index]
    if new.domain == "list":
        table, what = ((PREDICATES, "the condition"), (MAPS, "each number"), (REDUCERS, "the result"))[index]
        body = table[name][1].format("...", k=k) or "left out"
        return f"{what} should be {body}."
    if new.domain == "string":
        return f"it should be {STRING[name][0].format(k=k)}."
    what = NUMBER[name][0].format(k=k) if index == 0 else TAILS[name][0].format(k=k)
    return f"it should be {what or 'the value alone'}."


def neighbours(spec: Spec, rng: random.Random) -> list[Spec]:
    """Every spec that differs in one part, by kind or by parameter."""
    result = []
    for index, (name, k) in enumerate(spec.parts):
        options = [
            (other, k if name in "gt ge lt le first last remove double" else _parameter(rng, other))
            for other in NEIGHBOURS[name]
        ]
        if "{k}" in str({**PREDICATES, **MAPS, **STRING, **NUMBER, **TAILS}.get(name, "")):
            options.append((name, k + 1 if isinstance(k, int) else rng.choice("aeionrt")))
        for option in options:
            if spec.domain == "list" and index == 1 and spec.parts[2][0] == "count":
                continue
            if option != (name, k):
                result.append(replace(spec, parts=(*spec.parts[:index], option, *spec.parts[index + 1 :])))
    return result


def inputs(spec: Spec, rng: random.Random, count: int) -> list[Any]:
    """Arguments to test with; thresholds appear among the numbers so that boundaries show."""
    if spec.domain == "number":
        return rng.sample(range(1, 60), count)
    if spec.domain == "string":
        return rng.sample(STRINGS, count)
    k = spec.parts[0][1]
    rows = []
    for _ in range(count):
        row = [rng.randrange(-9, 13) for _ in range(rng.randrange(3, 6))]
        if spec.parts[0][0] in ("gt", "ge", "lt", "le"):
            row[rng.randrange(len(row))] = k
        rows.append(row)
    return rows


def _tests(spec: Spec, name: str, rng: random.Random) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    function, arguments = compiled(spec), inputs(spec, rng, 7)
    wrong = [compiled(other) for other in neighbours(spec, rng)]
    # the examples are those that tell the most neighbours apart, so that they decide what the words leave open
    arguments.sort(key=lambda a: -sum(repr(f(a)) != repr(function(a)) for f in wrong))
    calls = [(f"{name}({a!r})", repr(function(a))) for a in arguments]
    asserts = [f"assert {call} == {value}" for call, value in calls]
    return calls[:2], asserts[:2], asserts[2:]


def _mutants(spec: Spec, name: str, rng: random.Random) -> tuple[tuple[str, str], ...]:
    return tuple((source(other, name), remark(other, spec)) for other in neighbours(spec, rng))


def _level(spec: Spec) -> int:
    plain = {"all", "same", "none"}
    return sum(name not in plain for name, _ in spec.parts)


def make_humaneval(rng: random.Random) -> Problem:
    """A signature with a docstring and two examples; the body is asked for."""
    spec, name = list_spec(rng), rng.choice(FUNCTIONS)
    calls, visible, hidden = _tests(spec, name, rng)
    verb = rng.choice(("Return", "Give back", "Compute"))
    shown = "\n".join(f"    >>> {call}\n    {value}" for call, value in calls)
    text = f'def {name}(xs):\n    """{verb} {phrase(spec)}.\n{shown}\n    """'
    return Problem(
        text, source(spec, name), spec.parts[2][0], _level(spec), entry_point=name, programmable=False,
        visible_tests=tuple(visible), hidden_tests=tuple(hidden), mutants=_mutants(spec, name, rng),
    )  # fmt: skip


def make_mbpp(rng: random.Random) -> Problem:
    """A sentence and a function name; every second task shows one example."""
    spec = rng.choice((string_spec, string_spec, number_spec, lambda r: list_spec(r, simple=True)))(rng)
    name = rng.choice(FUNCTIONS)
    calls, visible, hidden = _tests(spec, name, rng)
    call = f"{name}({ARGUMENT[spec.domain]})"
    text = rng.choice(("Write a function {} that returns {}.", "Write a Python function {} which gives {}."))
    text = text.format(call, phrase(spec))
    # where the words leave something open, an example has to decide
    if shows := rng.random() < 0.5 or any(part in AMBIGUOUS for part, _ in spec.parts):
        text += f" For example, {calls[0][0]} is {calls[0][1]}."
    return Problem(
        text, source(spec, name), spec.domain, _level(spec), entry_point=name, programmable=False,
        visible_tests=tuple(visible[:1] if shows else ()), hidden_tests=tuple(hidden),
        mutants=_mutants(spec, name, rng),
    )  # fmt: skip
