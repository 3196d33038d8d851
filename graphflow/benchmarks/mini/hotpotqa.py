"""mini-hotpotqa: short passages about invented people, firms and cities; bridge and comparison questions."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from graphflow.benchmarks.mini.problem import Problem
from graphflow.benchmarks.mini.words import CITIES, COUNTRIES, FIRMS, JOBS, PEOPLE


@dataclass
class World:
    """Facts of one task, drawn at random: nothing can be known without reading the passages."""

    city: dict[str, str] = field(default_factory=dict)
    year: dict[str, int] = field(default_factory=dict)
    job: dict[str, str] = field(default_factory=dict)
    country: dict[str, str] = field(default_factory=dict)
    founder: dict[str, str] = field(default_factory=dict)
    passages: dict[str, str] = field(default_factory=dict)  # by name, in the order shown


def make_world(rng: random.Random, people: int, firms: int) -> World:
    """Draws people, the cities they were born in and firms they founded, each with a passage."""
    world = World()
    names = rng.sample(PEOPLE, people)
    cities = rng.sample(CITIES, max(2, people - 1))
    for name in names:
        world.city[name] = rng.choice(cities)
        world.year[name] = rng.randrange(1900, 2000)
        world.job[name] = rng.choice(JOBS)
    used = sorted(set(world.city.values()))
    for city in used:
        world.country[city] = rng.choice(COUNTRIES)
    for firm in rng.sample(FIRMS, firms):
        world.founder[firm] = rng.choice(names)
    texts = {n: f"{n} was born in {world.city[n]} in {world.year[n]}. {n} is a {world.job[n]}." for n in names}
    texts |= {c: f"{c} is a city in {world.country[c]}." for c in used}
    texts |= {f: f"{f} was founded by {world.founder[f]}." for f in world.founder}
    order = list(texts)
    rng.shuffle(order)
    world.passages = {name: texts[name] for name in order}
    return world


@dataclass(frozen=True)
class Question:
    """A question with its answer, the names to look up and the facts that decide."""

    text: str
    answer: str
    family: str
    hops: tuple[str, ...]
    facts: tuple[str, ...]


def ask(rng: random.Random, world: World) -> Question:
    """One question about a world."""
    families = ["country", "older", "same_city"] + (
        ["founder_city", "founder_job", "founder_year"] if world.founder else []
    )
    family = rng.choice(families)
    if family == "country":
        p = rng.choice(list(world.city))
        text = rng.choice(("In which country was {} born?", "Which country does {} come from?")).format(p)
        c = world.city[p]
        facts = (f"{p} was born in {c}.", f"{c} is a city in {world.country[c]}.")
        return Question(text, world.country[c], family, (p, c), facts)
    if family in ("older", "same_city"):
        p, q = rng.sample(list(world.city), 2)
        if family == "older":
            text = rng.choice(("Who was born first, {} or {}?", "Who is older, {} or {}?")).format(p, q)
            facts = (f"{p} was born in {world.year[p]}.", f"{q} was born in {world.year[q]}.")
            return Question(text, p if world.year[p] < world.year[q] else q, family, (p, q), facts)
        text = rng.choice(("Were {} and {} born in the same city?", "Do {} and {} come from the same city?")).format(
            p, q
        )
        facts = (f"{p} was born in {world.city[p]}.", f"{q} was born in {world.city[q]}.")
        return Question(text, "yes" if world.city[p] == world.city[q] else "no", family, (p, q), facts)
    firm = rng.choice(list(world.founder))
    p = world.founder[firm]
    first = f"{firm} was founded by {p}."
    if family == "founder_city":
        text = rng.choice(("In which city was the founder of {} born?", "Where was the person who founded {} born?"))
        return Question(
            text.format(firm), world.city[p], family, (firm, p), (first, f"{p} was born in {world.city[p]}.")
        )
    if family == "founder_job":
        text = rng.choice(("What is the job of the founder of {}?", "What does the person who founded {} work as?"))
        return Question(text.format(firm), world.job[p], family, (firm, p), (first, f"{p} is a {world.job[p]}."))
    text = rng.choice(("In which year was the founder of {} born?", "When was the person who founded {} born?"))
    return Question(
        text.format(firm), str(world.year[p]), family, (firm, p), (first, f"{p} was born in {world.year[p]}.")
    )


def context(world: World) -> str:
    """The passages as the task shows them."""
    return "\n".join(world.passages.values())


def problem_of(world: World, question: Question) -> Problem:
    """The problem that a world and a question make."""
    return Problem(
        text=f"{context(world)}\nQuestion: {question.text}",
        answer=question.answer,
        family=question.family,
        level=1 if question.family in ("older", "same_city") else 2,
        passages=tuple(world.passages.values()),
        question=question.text,
        hops=tuple((name, world.passages[name]) for name in question.hops),
        facts=question.facts,
        programmable=False,
    )


def make(rng: random.Random) -> Problem:
    """One task with eight to eleven passages."""
    world = distinct_world(rng, rng.randrange(4, 6), rng.randrange(2, 4))
    return problem_of(world, ask(rng, world))


def distinct_world(rng: random.Random, people: int, firms: int) -> World:
    """A world in which no two people are born in the same year."""
    while True:
        world = make_world(rng, people, firms)
        if len(set(world.year.values())) == len(world.year):
            return world
