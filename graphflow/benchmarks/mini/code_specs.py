"""Functions of the grammar as specs: drawing them, their words, their Python and the mistakes next to them."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from graphflow.benchmarks.mini.code_parts import SLOTS, VAGUE, Op

ARGUMENTS = {"list": "xs", "list_k": "xs, k", "string": "s", "strings": "s, t", "number": "n", "numbers": "a, b"}
LOCAL = {"list": "ys", "list_k": "ys", "string": "t", "strings": "u", "number": "m", "numbers": "m"}
PLAIN = {"all", "whole", "same", "none", "list"}  # parts that change nothing
VAGUE_SHARE, USUAL_SHARE = 0.65, 0.72
LETTERS = "aenrtolp"


@dataclass(frozen=True)
class Part:
    """One part of a function.

    Attributes:
        slot: Its place, a key of `SLOTS`.
        name: Its name there.
        params: Its parameters; ``"k"`` stands for the function's own argument.
        vague: Name of the words that leave its reading open; empty if they are clear.
    """

    slot: str
    name: str
    params: tuple[int | str, ...] = ()
    vague: str = ""

    @property
    def op(self) -> Op:
        """The entry of the grammar."""
        return SLOTS[self.slot][self.name]

    def fill(self, text: str) -> str:
        """A phrase or code with this part's parameters."""
        for mark, value in zip(("{k}", "{j}"), self.params, strict=False):
            text = text.replace(mark, str(value))
        return text


@dataclass(frozen=True)
class Spec:
    """A function: its domain (a key of `ARGUMENTS`) and its parts in order.

    Lists have a predicate, a source, a map and a reducer; the others one part and up to two that work on its value.
    """

    domain: str
    parts: tuple[Part, ...]

    @property
    def structure(self) -> str:
        """Domain and part names without parameters; two readings of the same words share theirs."""
        names = [f"{part.vague}?" if part.vague else part.name for part in self.parts if part.name not in PLAIN]
        return f"{self.domain}:{'|'.join(names)}"

    @property
    def vague(self) -> bool:
        """Whether only the examples decide what is meant."""
        return any(part.vague for part in self.parts)

    @property
    def rare(self) -> bool:
        """Whether vague words are meant in the rarer of their readings."""
        return any(part.vague and part.name == VAGUE[part.vague].rare for part in self.parts)

    @property
    def level(self) -> int:
        """Number of parts that change something, one more if the words are vague; from 1 to 5."""
        return max(1, min(5, sum(part.name not in PLAIN for part in self.parts) + self.vague))


def _parameters(rng: random.Random, kinds: str) -> tuple[int | str, ...]:
    if kinds == "nw":
        low = rng.randrange(1, 6)
        return low, low + rng.randrange(3, 7)
    if kinds == "cc":
        return tuple(rng.sample(LETTERS, 2))
    ranges = {"n": (2, 10), "s": (2, 4), "m": (3, 6)}
    return tuple(rng.choice(LETTERS) if kind == "c" else rng.randrange(*ranges[kind]) for kind in kinds)


def _part(rng: random.Random, slot: str, *without: str) -> Part:
    name = rng.choice([name for name in SLOTS[slot] if name not in without])
    return Part(slot, name, _parameters(rng, SLOTS[slot][name].params))


def _list_parts(rng: random.Random) -> tuple[Part, ...]:
    reducer = _part(rng, "reducer")
    predicate = Part("predicate", "all") if rng.random() < 0.15 else _part(rng, "predicate", "all")
    # these look at the whole list
    whole = predicate.name in ("often", "once", "above_mean") or rng.random() < 0.8
    source = Part("source", "whole") if whole else _part(rng, "source", "whole")
    plain = reducer.op.gives == "size" or rng.random() < 0.55
    change = Part("map", "same") if plain else _part(rng, "map", "same")
    return predicate, source, change, reducer


def _text_parts(rng: random.Random, first: Part) -> tuple[Part, ...]:
    """A part that gives a text, and perhaps one more that works on it."""
    roll = rng.random()
    if roll < 0.15:
        return (first,)
    return (first, _part(rng, "text", first.name) if roll < 0.65 else _part(rng, "reading"))


def _number_parts(rng: random.Random, first: Part) -> tuple[Part, ...]:
    plain = first.op.gives in ("list", "bool") or rng.random() < 0.2
    return (first, Part("tail", "none") if plain else _part(rng, "tail", "none"))


def _parts(rng: random.Random, domain: str) -> tuple[Part, ...]:
    match domain:
        case "list" | "list_k":
            return _list_parts(rng)
        case "string":
            single = rng.random() < 0.1
            return (_part(rng, "reading"),) if single else _text_parts(rng, _part(rng, "text"))
        case "strings":
            first = _part(rng, "text_pair")
            return (first,) if first.op.gives else _text_parts(rng, first)
        case _:
            return _number_parts(rng, _part(rng, "pair" if domain == "numbers" else "number"))


def draw_spec(rng: random.Random, domain: str) -> Spec:
    """A function of a domain that does something and whose body has at most two lines."""
    while True:
        parts = list(_parts(rng, domain))
        if domain == "list_k":
            free = [i for i, part in enumerate(parts) if len(part.params) == 1]
            if not free:
                continue
            index = rng.choice(free)
            parts[index] = replace(parts[index], params=("k",))
        open_words = [
            (i, name, words)
            for i, part in enumerate(parts)
            for name, words in VAGUE.items()
            if words.slot == part.slot and part.name in (words.usual, words.rare)
        ]
        if open_words and rng.random() < VAGUE_SHARE:
            index, name, words = rng.choice(open_words)
            meant = words.usual if rng.random() < USUAL_SHARE else words.rare
            parts[index] = replace(parts[index], name=meant, vague=name)
        spec = Spec(domain, tuple(parts))
        if any(part.name not in PLAIN for part in parts) and len(body(spec)) <= 2:
            return spec


def phrase(spec: Spec, rng: random.Random | None = None) -> str:
    """What the function returns, in words; with the first wording of every part if no source of randomness is given."""

    def words(part: Part, only: str = "") -> str:
        choices = VAGUE[part.vague].phrases if part.vague else part.op.phrases
        choices = tuple(text for text in choices if text.startswith(only)) or choices
        return part.fill(rng.choice(choices) if rng else choices[0])

    first, *rest = spec.parts
    if spec.domain in ("list", "list_k"):
        text = f"{words(first)} {words(rest[0])}"
        for part in rest[1:]:
            text = words(part).replace("{}", text)
        return text
    text = "s" if spec.domain == "string" else ""
    joint = rng.choice((" and then", ", then")) if rng else " and then"
    for index, part in enumerate(spec.parts):
        # what stands before a phrase is short and clear, or the phrase follows it
        clear = part.slot != "tail" or (text.startswith("the ") and "," not in text)
        chosen = words(part, "" if clear else "{}")
        if part.slot == "text" and index:
            text += joint
        elif not chosen.startswith("{}") and not chosen.endswith("{}") and "," in text:
            text += ","
        text = chosen.replace("{}", text)
    return text


def _apply(part: Part, value: str, lines: list[str], local: str) -> str:
    """The code of a part around that of a value, which gets a name first if it is needed twice."""
    code = part.fill(part.op.code)
    if code.count("{}") > 1 and not value.isidentifier():
        lines.append(f"{local} = {_stripped(value)}")
        value = local
    return code.replace("{}", value)


def _stripped(code: str) -> str:
    """Code without the brackets around all of it."""
    depth = 0
    for index, letter in enumerate(code):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return code[1:-1] if letter == ")" and index == len(code) - 1 and code[0] == "(" else code
    return code


def items(spec: Spec) -> str:
    """The list that a list function reduces."""
    predicate, place, change, _ = spec.parts
    condition = predicate.fill(predicate.op.code)
    over, each = place.fill(place.op.code), change.fill(change.op.code)
    if not condition and each == "x":
        return over
    return f"[{each} for x in {over}{' if ' if condition else ''}{condition}]"


def body(spec: Spec) -> list[str]:
    """The lines of the function."""
    lines: list[str] = []
    local = LOCAL[spec.domain]
    if spec.domain in ("list", "list_k"):
        value = _apply(spec.parts[-1], items(spec), lines, local)
    else:
        value = "s" if spec.domain == "string" else ""
        for part in spec.parts:
            value = _apply(part, value, lines, local)
    return [*lines, f"return {_stripped(value)}"]


def source(spec: Spec, name: str) -> str:
    """The whole function."""
    return "\n    ".join([f"def {name}({ARGUMENTS[spec.domain]}):", *body(spec)])


def remark(old: Spec, new: Spec) -> str:
    """One sentence that says what ``old`` has and what ``new`` has instead; they differ in one part."""
    if len(old.parts) != len(new.parts):
        return f"one step is missing, it should be {phrase(clear(new))}."
    was, should = next((a, b) for a, b in zip(clear(old).parts, clear(new).parts, strict=True) if a != b)
    before, after = (part.fill(part.op.code).replace("{}", "...") for part in (was, should))
    match should.slot:
        case "predicate":
            return f"the condition is {before or 'missing'}, it should be {after or 'left out'}."
        case "source":
            return f"it goes over {before}, it should go over {after}."
        case "map":
            return f"each number is {before}, it should be {after}."
        case _:
            return f"the result is {before}, it should be {after}."


def clear(spec: Spec) -> Spec:
    """The same function in words that leave nothing open."""
    return replace(spec, parts=tuple(replace(part, vague="") for part in spec.parts))


def twin(part: Part) -> str:
    """The other reading of a vague part."""
    words = VAGUE[part.vague]
    return words.rare if part.name == words.usual else words.usual


def neighbours(spec: Spec, rng: random.Random) -> list[Spec]:
    """Specs that differ in one part, by kind or by parameter, or lack one; the other reading of vague words first."""
    found: list[tuple[bool, Spec]] = []
    bare = bool(spec.parts[0].op.gives)
    for index, part in enumerate(spec.parts):
        if part.slot == "tail" and bare:
            continue  # nothing can be added to a list or a truth value
        options: list[Part] = []
        other = twin(part) if part.vague else ""
        names = [name for name in part.op.near.split() if name != other]
        for name in [other, *names] if other else names:
            kinds = SLOTS[part.slot][name].params
            kept = part.params if kinds == part.op.params else _parameters(rng, kinds)
            options.append(Part(part.slot, name, kept))
        for first in part.params[:1]:
            if first != "k":
                letters = [c for c in LETTERS if c not in part.params]
                changed = first + 1 if isinstance(first, int) else rng.choice(letters)
                options.append(replace(part, params=(changed, *part.params[1:])))
        for option in options:
            wrong = replace(spec, parts=(*spec.parts[:index], option, *spec.parts[index + 1 :]))
            found.append((bool(other) and option.name == other, clear(wrong)))
        if spec.domain in ("string", "strings") and len(spec.parts) > 1 and (index or spec.domain == "string"):
            found.append((False, clear(replace(spec, parts=(*spec.parts[:index], *spec.parts[index + 1 :])))))
    found.sort(key=lambda pair: not pair[0])  # stable: the other reading comes first
    return [other for _, other in found if len(body(other)) <= 2]
