"""mini-gsm8k: stories of one to four steps, composed from openings, events, distractors and questions (our choice).

Two number regimes: small numbers, whose steps can be learnt as mental arithmetic, and large ones for programs.
"""

from __future__ import annotations

import random
import re

from graphflow.benchmarks.mini.gsm8k_families import PLANS
from graphflow.benchmarks.mini.gsm8k_story import Infeasible, Story
from graphflow.benchmarks.mini.gsm8k_words import ANSWER_LINES, QUESTION_FIRST, SCENES
from graphflow.benchmarks.mini.problem import Line, Problem, evaluate

WORDS = (12, 60)
LARGE_SHARE = 0.45
KEPT = (1.0, 1.0, 0.7, 0.2, 0.0, 0.0)  # share of the stories of 1, 2, ... steps that are kept: none has more than four
_NAMES, _WEIGHTS = list(PLANS), [weight for _, weight in PLANS.values()]


def level_of(lines: tuple[Line, ...], large: bool, asides: int) -> int:
    """Level 1-5: a point for each step, one for large numbers, one for distractors; two points or less are level 1."""
    return min(5, max(1, len(lines) + large + (asides > 0) - 1))


def make(rng: random.Random) -> Problem:
    """One word problem."""
    large = rng.random() < LARGE_SHARE
    family = rng.choices(_NAMES, _WEIGHTS)[0]
    while True:
        try:
            return _make(rng, family, large)
        except Infeasible:
            continue


def _make(rng: random.Random, family: str, large: bool) -> Problem:
    story = Story(rng, large)
    final, question = PLANS[family][0](story)
    lines, shape = story.solution(final)
    if rng.random() > KEPT[len(lines) - 1]:
        raise Infeasible
    rows = evaluate(lines)
    if large and not re.search(r"\d{3}", " ".join(text for text, _ in story.sentences)):
        raise Infeasible
    asides = rng.choices((0, 1, 2), (max(2, 8 - len(lines)), 4, max(0, len(lines) - 2)))[0]
    for _ in range(asides):
        story.aside()
    sentences = [text for text, _ in story.sentences]
    if rng.random() < 0.15:
        sentences.insert(0, rng.choice(QUESTION_FIRST).format(question))
    else:
        sentences.append(question)
    sentences.append(rng.choice(ANSWER_LINES))
    words = sum(text.count(" ") + 1 for text in sentences)
    if words < WORDS[0] or rng.random() < 0.05:
        scene = story.fill(rng.choice(SCENES))
        sentences.insert(0, scene)
        words += scene.count(" ") + 1
    if not WORDS[0] <= words <= WORDS[1]:
        raise Infeasible
    level = level_of(lines, large, asides)
    return Problem(" ".join(sentences), str(rows[-1][3]), family, level, f"{family}|{shape}", lines)
