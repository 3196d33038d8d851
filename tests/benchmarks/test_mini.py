"""The embedded suite as a whole: disjoint splits, references that score, traces in both layouts."""

import random
import re

import pytest

from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.benchmarks.base import BenchmarkError
from graphflow.benchmarks.mini.problem import HELD_OUT, Line, Problem, draw, evaluate, held_out, split_of
from graphflow.benchmarks.mini.repairs import failing_test
from graphflow.benchmarks.mini.suite import MAKERS, SIZES
from graphflow.benchmarks.mini.traces import (
    BRANCHES,
    HARD_SHARE,
    Role,
    Stage,
    calls,
    hard_by_hand,
    make_calls,
    make_problems,
    make_trace,
    mistaken,
    selection,
)

KINDS = tuple(MAKERS)
SPLITS = tuple(SIZES)


def suite(kind, **sizes):
    return build_benchmark(BenchmarkConfig(name=f"mini-{kind}", **sizes))


def normal(text):
    return re.sub(r"[^a-z0-9]", "", text.lower())


@pytest.mark.parametrize("kind", KINDS)
def test_splits_are_disjoint_on_normalised_text_and_repeat(kind):
    benchmark = suite(kind, train_size=400, validation_size=100, test_size=100, heldout_size=50)
    texts = {split: [normal(e.task.text) for e in benchmark.examples(split)] for split in SPLITS}
    assert [len(t) for t in texts.values()] == [400, 100, 100, 50]
    for index, first in enumerate(SPLITS):
        for second in SPLITS[index + 1 :]:
            assert not set(texts[first]) & set(texts[second])
    again = suite(kind, test_size=40).examples("test")
    assert [e.task for e in again] == [e.task for e in benchmark.examples("test")[:40]], (
        "a smaller split is the beginning"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_structures_occur_in_no_other_split(kind):
    rng = random.Random(f"structures/{kind}")
    structures = {
        split: {draw(MAKERS[kind], rng, split).structure for _ in range(120)} for split in ("train", "test", HELD_OUT)
    }
    assert all(structures.values()) and "" not in set.union(*structures.values())
    assert not structures[HELD_OUT] & (structures["train"] | structures["test"])
    assert len(structures[HELD_OUT]) >= 8, "a held-out split of few structures says little"


def test_a_structure_is_held_out_by_its_name_alone():
    share = sum(held_out(f"s{index}") for index in range(4000)) / 4000
    assert 0.10 < share < 0.14
    kept = next(f"s{i}" for i in range(100) if not held_out(f"s{i}"))
    other = next(f"s{i}" for i in range(100) if held_out(f"s{i}"))
    assert split_of(Problem("one text", "1", "f", 1, other)) == HELD_OUT
    assert split_of(Problem("one text", "1", "f", 1, kept)) == split_of(Problem("One, text!", "2", "g", 2, kept))


def test_an_unknown_split_is_refused_by_name():
    with pytest.raises(BenchmarkError, match="mini-math must be one of train, validation, test, heldout, got 'dev'"):
        suite("math").examples("dev")


@pytest.mark.parametrize("kind", KINDS)
def test_references_score_one_and_others_zero(kind):
    benchmark = suite(kind, test_size=60)
    examples = benchmark.examples("test")
    assert benchmark.score_many(examples, [e.reference for e in examples]) == [1.0] * 60
    wrong = {"gsm8k": "answer: -1", "math": r"\boxed{-1}", "hotpotqa": "nobody"}.get(kind, "def nothing():\n    pass")
    assert benchmark.score_many(examples, [wrong] * 60) == [0.0] * 60


def test_straight_line_programs_by_hand():
    lines = (Line(12, "+", 7), Line("a", "*", 3), Line("b", "mod", 10))
    assert [row[3] for row in evaluate(lines)] == [19, 57, 7]
    assert [row[3] for row in evaluate(lines, wrong=0, delta=1)] == [20, 60, 0], "a mistake is carried on"
    problem = Problem("", "7", "", 1, lines=lines)
    assert problem.solution() == "12 + 7 = 19. 19 * 3 = 57. 57 mod 10 = 7. answer: 7"
    assert problem.code() == "def solve():\n    a = 12 + 7\n    b = a * 3\n    c = b % 10\n    return c"
    assert problem.plan() == "a = 12 + 7. b = a * 3. c = b mod 10."


def test_a_mistake_is_carried_into_an_answer_that_is_an_expression():
    lines = (Line(2, "+", 3), Line(2, "*", 3))
    problem = Problem("", "x^2 + 5x + 6", "", 1, lines=lines, form="x^2 + {a}x + {b}", final=r"\boxed{{{}}}")
    assert problem.result() == problem.answer
    assert problem.solution(wrong=1, delta=2) == r"2 + 3 = 5. 2 * 3 = 8. \boxed{x^2 + 5x + 8}"


@pytest.mark.parametrize("kind", ["gsm8k", "math"])
def test_mistaken_solutions_are_wrong_where_they_say(kind):
    rng, lines = random.Random("mistakes"), set()
    benchmark = suite(kind)
    for _ in range(80):
        problem = draw(MAKERS[kind], rng, "train")
        worked, answer, line = mistaken(problem, rng)
        right, wrong = problem.solution().split(". "), worked.split(". ")
        assert right[:line] == wrong[:line] and right[line] != wrong[line], (problem.solution(), worked)
        assert worked.endswith(problem.final.format(answer)) and answer != problem.answer
        lines.add(line)
    assert len(lines) > 2 and benchmark.version == 4


def test_hard_by_hand():
    assert not hard_by_hand(Problem("", "", "", 1, lines=(Line(12, "*", 16), Line("a", "+", 7), Line(500, "-", 301))))
    assert hard_by_hand(Problem("", "", "", 1, lines=(Line(13, "*", 13),)))
    assert hard_by_hand(Problem("", "", "", 1, lines=(Line(199, "+", 1),)))


@pytest.mark.parametrize("kind", ["gsm8k", "math"])
def test_what_is_hard_by_hand_is_rarely_worked_and_checked_by_hand(kind):
    """Worked steps, their review and their judgement come together: always, or in `HARD_SHARE` of the hard problems."""
    rng, shown = random.Random("hard"), {True: [], False: []}
    while min(map(len, shown.values())) < 300:
        problem = draw(MAKERS[kind], rng, "train")
        branches = BRANCHES[kind](problem, rng)
        names = [turn.text for branch in branches for turn in branch if turn.role is Role.OPERATION]
        first = {branch[0].text for branch in branches}
        assert names.count("review") == names.count("judge") == ("generate_cot" in first) <= 1
        assert {"program", "decompose"} <= first
        shown[hard_by_hand(problem)].append("review" in names)
    assert all(shown[False])
    assert HARD_SHARE - 0.07 < sum(shown[True]) / len(shown[True]) < HARD_SHARE + 0.07


def test_a_selection_has_a_right_candidate_and_names_the_first():
    rng = random.Random("selection")
    for _ in range(50):
        *candidates, _, answer = selection(["r"], ["w"], rng)
        texts = [turn.text.partition(": ")[2] for turn in candidates]
        assert texts["ABC".index(answer.text)] == "r" and "r" not in texts[: "ABC".index(answer.text)]
        assert "w" in texts and len(texts) in (2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_traces_come_from_training_problems_and_judges_see_both_right_and_wrong(kind):
    rng, answers = random.Random("traces"), {}
    train = {normal(draw(MAKERS[kind], rng, "test").text) for _ in range(50)}
    for _ in range(80):
        trace = make_trace(kind, rng)
        for branch in trace.branches:
            whole = trace.root + "".join(turn.text for turn in branch[:1] if turn.role is Role.TASK)
            assert normal(whole) not in train
            names = [turn.text for turn in branch if turn.role is Role.OPERATION]
            assert names and any(turn.role is Role.OUTPUT for turn in branch)
            for before, turn in zip(branch[:-1], branch[1:], strict=True):
                if turn.role is Role.OUTPUT:
                    answers.setdefault(before.text, set()).add(turn.text.split(":")[0])
    assert answers["ensemble_select"] == {"A", "B", "C"}
    expected = {
        "gsm8k": "answer_generate decompose ensemble_select generate_cot judge program review revise",
        "math": "answer_generate decompose ensemble_select generate_cot judge program review revise",
        "hotpotqa": "answer_generate ensemble_select extract_facts judge lookup_query",
    }.get(kind, "code_generate ensemble_select fix_program reflect")
    assert sorted(answers) == expected.split()
    if kind in ("gsm8k", "math"):
        assert answers["review"] == {"ok", "issues"}
    if kind in ("gsm8k", "math", "hotpotqa"):
        assert answers["judge"] == {"correct", "wrong"}


def test_traces_of_one_split_are_drawn_from_it():
    rng = random.Random("split")
    for kind in KINDS:
        for split in ("test", HELD_OUT):
            root, problems = make_problems(kind, rng, split)
            assert problems and all(split_of(problem) == split for problem in problems)
            assert all(problem.text.startswith(root) for problem in problems)


def test_early_problems_are_easy_and_a_few_are_not():
    rng = random.Random("stage")
    levels = [make_problems("gsm8k", rng, stage=Stage(level=1))[1][0].level for _ in range(200)]
    assert 0.6 < levels.count(1) / 200 < 1, "one of ten harder draws comes through"
    _, problems = make_problems("hotpotqa", rng, stage=Stage(passages=4, simple=1.0))
    assert all(len(problem.hops) == 1 and len(problem.passages) == 4 for problem in problems)
    for branch in BRANCHES["hotpotqa"](problems[0], rng):
        assert any(turn.role is Role.OUTPUT for turn in branch)


@pytest.mark.parametrize("kind", ["humaneval", "mbpp"])
def test_a_draft_that_is_to_be_repaired_fails_the_test_it_is_shown_with(kind):
    rng = random.Random("repair")
    for _ in range(40):
        problem = draw(MAKERS[kind], rng, "train")
        for branch in BRANCHES[kind](problem, rng):
            drafts = [turn.text for turn in branch if turn.role is Role.DRAFT]
            shown = [turn.text for turn in branch if turn.role is Role.TOOL]
            assert shown == [failing_test(problem, source) for source in drafts] and "" not in shown


def test_calls_hold_what_came_before_without_operation_prompts_and_each_once():
    """Review and revision of one draft are two calls; a look-up that two branches share is one."""
    rng = random.Random("calls")
    problem = draw(MAKERS["hotpotqa"], rng, "train")
    branches = BRANCHES["hotpotqa"](problem, rng)
    found = calls(branches)
    assert len(found) == len(set(found))
    first, *later = [call for call in found if call.operation == "lookup_query"]
    assert [turn.role for turn in first.history] == [Role.TASK]
    assert [turn.role for turn in later[0].history] == [Role.TASK, Role.DRAFT, Role.TOOL]
    assert later[0].history[1].text == first.output
    outputs = {
        (before.text, turn.text)
        for branch in branches
        for before, turn in zip(branch[:-1], branch[1:], strict=True)
        if turn.role is Role.OUTPUT
    }
    assert {(call.operation, call.output) for call in found} == outputs


def test_operation_first_calls_of_one_draw_share_their_operation_and_begin_with_the_task():
    for kind in KINDS:
        rng, operations = random.Random(f"calls/{kind}"), set()
        for _ in range(30):
            for operation, root, drawn in make_calls(kind, rng, 4):
                operations.add(operation)
                assert {call.operation for call in drawn} == {operation}
                assert bool(root) == (kind == "hotpotqa")
                assert all(call.history[0].role is Role.TASK for call in drawn)
        assert operations == {c.operation for _ in range(40) for c in calls(make_trace(kind, rng).branches)}
