"""Batches depend on seed and number alone: both layouts in equal shares, short prompts first, long rows at times."""

import random
import re
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from graphflow.backbone.turns import MINI
from graphflow.benchmarks.mini.suite import MAKERS
from graphflow.benchmarks.mini.traces import DRILL, Role, Trace, Turn, call, calls, draft, make_calls, make_trace
from graphflow.benchmarks.mini.writing import STRESS, TraceWriter
from graphflow.paths import ASSETS, CONF
from graphflow.training.data import LONG_PASSAGES, SHORT_WORDS, Batches, prompts_of
from graphflow.training.lessons import Lessons
from graphflow.training.recipe import REPEAT, Recipe
from graphflow.wgraph.library import load_operations, load_workflows
from tests.tiny import tiny_tokenizer

LIBRARY = load_operations(CONF / "operations")


def batches(**changes):
    settings = {"tokens": 40_960, "batch": 4096, "long_every": 2, "repeat_share": 0.0, "whole_share": 0.0} | changes
    return Batches(Recipe(**settings), tiny_tokenizer(), LIBRARY)


def test_a_batch_depends_on_seed_and_number_alone():
    first, again, other = batches()[3], batches()[3], batches(seed=1)[3]
    assert torch.equal(first.ids, again.ids) and torch.equal(first.weights, again.weights)
    assert not torch.equal(first.ids, other.ids) and not torch.equal(first.ids, batches()[4].ids)


def test_rows_are_short_first_then_long_and_now_and_then_the_whole_context():
    made = batches(short_share=0.5)
    assert [tuple(made[index].ids.shape) for index in (0, 4, 5, 6)] == [(8, 512), (8, 512), (4, 1024), (2, 2048)]
    assert made.recipe.steps == 10 and len(made) == 10


def test_training_begins_with_random_tokens_that_are_repeated():
    made = batches(repeat_share=0.2)
    rows = made[1]
    assert (made.recipe.repeats(1), made.recipe.repeats(2)) == (True, False)
    for row, labels, documents in zip(rows.ids, rows.labels, rows.documents, strict=True):
        for number in documents.unique().tolist()[1:]:
            ids, learnt = row[documents == number], labels[documents == number]
            half = len(ids) // 2
            assert torch.equal(ids[:half], ids[half:]) and torch.equal(learnt[half:-1], ids[half + 1 :])
            assert (learnt[:half] == -100).all() and learnt[-1] == -100


def test_sheets_come_in_late():
    recipe = Recipe(tokens=409_600, drill_from=0.5)
    assert (DRILL in recipe.kinds(49), DRILL in recipe.kinds(50)) == (False, True)
    assert REPEAT in recipe.kinds(49) and REPEAT not in Recipe(repeat_share=0.0).kinds(49)
    more, usual = Recipe(code_weight=3.0).kinds(0), Recipe().kinds(0)
    assert {kind: round(more[kind] / usual[kind], 6) for kind in usual if more[kind] != usual[kind]} == {
        "humaneval": 3.0,
        "mbpp": 3.0,
    }
    with pytest.raises(ValueError, match="code_weight must be above 0, got 0"):
        Recipe(code_weight=0)


def test_prompts_are_cut_while_the_recipe_says_so():
    prompts = prompts_of(LIBRARY)
    assert "run_python" not in prompts and min(len(prompt.split()) for prompt in prompts.values()) > SHORT_WORDS
    made = batches(short_share=0.5)
    assert {cut: (writer.words, writer.prompts) for cut, writer in made.writers.items()} == {
        True: (SHORT_WORDS, prompts),
        False: (0, prompts),
    }
    jumps = [int(made[index].positions.diff(dim=1).max()) for index in (4, 5)]
    assert made.recipe.short(4) and not made.recipe.short(5)
    assert jumps[0] > SHORT_WORDS and jumps[1] == 1, "positions leave room for the words that were cut"


@pytest.fixture(scope="module")
def writers():
    """Writers of the same traces with whole and with cut prompts."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ASSETS / "qwen-mini")
    return [TraceWriter(tokenizer, MINI, prompts_of(LIBRARY), 0.2, words) for words in (0, SHORT_WORDS)]


def tokens(document):
    """Branch, position, token and weight of every token; no two share branch and position."""
    rows = list(zip(document.branches, document.positions, document.ids, document.weights, strict=True))
    assert len({row[:2] for row in rows}) == len(rows)
    return rows


def tokens_are_kept_in_place(writer, whole, cut, prompts):
    """Every token of ``cut`` stands where it stands in ``whole``; what is missing are words inside of ``prompts``."""
    before, after = tokens(whole), tokens(cut)
    ends = [writer.tokenizer.convert_tokens_to_ids(name) for name in ("<|out|>", "<|end|>")]
    assert set(after) < set(before)
    assert [row for row in after if row[3]] == [row for row in before if row[3]], "outputs and task text"
    assert [row for row in after if row[2] in ends] == [row for row in before if row[2] in ends], "ends of prompts"
    lost = [len(writer.ids(" " + writer.prompts[name].split(maxsplit=SHORT_WORDS)[-1])) for name in prompts]
    assert len(before) - len(after) == sum(lost) and min(lost) > 5


@pytest.mark.parametrize("kind", [*MAKERS, DRILL])
@pytest.mark.parametrize("blocked", [False, True])
def test_cut_prompts_leave_every_other_token_in_its_place_task_first(writers, kind, blocked):
    rng = random.Random(f"cut/{kind}")
    for _ in range(5):
        trace = make_trace(kind, rng)
        (whole,), (cut,) = (list(writer.write(trace, 8192, blocked)) for writer in writers)
        prompts = [turn.text for branch in trace.branches for turn in branch if turn.role is Role.OPERATION]
        tokens_are_kept_in_place(writers[0], whole, cut, prompts)
        assert max(whole.blocks) == max(cut.blocks) == blocked * len(prompts)


@pytest.mark.parametrize("kind", [*MAKERS, DRILL])
def test_cut_prompts_leave_every_other_token_in_its_place_operation_first(writers, kind):
    rng = random.Random(f"cut/{kind}")
    for _ in range(3):
        for operation, root, asked in make_calls(kind, rng, 3):
            (whole,), (cut,) = (list(writer.write_calls(operation, root, asked, 16384)) for writer in writers)
            tokens_are_kept_in_place(writers[0], whole, cut, [operation])


def test_what_must_not_be_copied_weighs_more_in_both_layouts(writers):
    """The token of ``>=`` alone, in the comment and in the code; a letter of it says which."""
    writer, comment = writers[0], "# the condition is x > 4, it should be x >= 4."
    text = f"{comment}\ndef f(xs):\n    return [x for x in xs if x >= 4]"
    stress = tuple((match.start(), match.end()) for match in re.finditer("=(?= 4)", text))
    branch = [*draft("code_generate", "def f(xs):\n    return xs"), *call("fix_program", text, *stress)]
    (task_first,) = writer.write(Trace("Write a function f(xs).", [branch]), 1024)
    (found,) = calls([branch])
    asked = replace(found, history=(Turn(Role.TASK, "Write a function f(xs)."), *found.history))
    (operation_first,) = writer.write_calls("fix_program", "", [asked], 1024)
    for document in (task_first, operation_first):
        output = [(token, weight) for token, weight in zip(document.ids, document.weights, strict=True) if weight >= 1]
        assert [token for token, _ in output] == writer.ids(text + MINI.closing)
        heavy = [(writer.tokenizer.decode(token), weight) for token, weight in output if weight > 1]
        assert heavy == [(" >=", STRESS)] * 2


def test_some_prompts_are_whole_from_the_beginning():
    recipe = Recipe(tokens=4096 * 1000, short_share=0.8, whole_share=0.25)
    whole = [not recipe.short(step) for step in range(1000)]
    assert 0.2 < sum(whole[:800]) / 800 < 0.3 and all(whole[800:])
    assert {recipe.row_length(step) for step in range(800) if whole[step]} == {recipe.length}


def test_layouts_have_equal_shares_of_the_tokens():
    """Operation-first documents begin with the prompt, task-first ones with the task: the token after bos tells."""
    made, counts = batches(long_length=0), {"<|task|>": 0, "<|op|>": 0}
    names = made.writers[True].tokenizer.convert_ids_to_tokens
    for index in range(6):
        rows = made[index]
        for row, documents in enumerate(rows.documents):
            for number in documents.unique().tolist():
                if number:
                    place = (documents == number).nonzero()[:, 0]
                    counts[names(int(rows.ids[row, place[1]]))] += len(place)
    share = counts["<|op|>"] / sum(counts.values())
    assert 0.35 < share < 0.65
    assert batches(operation_first=0.0)[0].ids[0, 1] == batches(operation_first=0.0)[1].ids[0, 1]


def test_problems_grow_and_long_rows_hold_many_passages():
    made, rng = batches(tokens=409_600, short_share=0.5, growth_share=0.5), random.Random(0)
    early = [made.stage(0, rng) for _ in range(50)]
    late = [made.stage(45, rng) for _ in range(200)]
    long = [made.stage(60, rng) for _ in range(50)]
    assert {(stage.passages, stage.level) for stage in early} == {(3, 1)} and early[0].simple == 0.6
    passages = [stage.passages for stage in late]
    assert max(passages) == 8 and min(passages) == 3 and {stage.level for stage in late} == {5}
    assert all(LONG_PASSAGES[0] <= stage.passages <= LONG_PASSAGES[1] for stage in long)
    assert all(stage.simple == 0 for stage in long)


def test_blocked_documents_occur_in_the_share_asked_for():
    assert not batches()[7].blocks.any()
    blocked = batches(blocked=1.0, operation_first=0.0)[7]
    assert (blocked.blocks.amax(1) > 0).all()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("blocked", 1.5, "recipe.blocked must lie in"), ("short_length", 500, "recipe.short_length must divide batch")],
)
def test_a_wrong_recipe_is_refused_by_name(field, value, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**{field: value})


def test_the_learning_rate_rises_stays_and_falls():
    recipe = Recipe(tokens=4096 * 1000, warmup_steps=10, decay_share=0.5, repeat_share=0.02, repeat_rate=3.0)
    rates = [recipe.learning_rate(step) for step in (0, 9, 19, 20, 499, 750, 999)]
    assert rates == pytest.approx([0.3, 3.0, 3.0, 1.0, 1.0, 0.51, 0.02196])


def test_lessons_come_in_the_share_that_the_recipe_gives_them():
    lessons = Lessons(LIBRARY, load_workflows(CONF / "workflows", LIBRARY))
    recipe = Recipe(tokens=40_960, batch=4096, repeat_share=0.0, short_share=0.0, lessons=1.0)
    made = Batches(recipe, tiny_tokenizer(), LIBRARY, lessons=lessons)
    assert made.writers[False].prompts == prompts_of(LIBRARY) | lessons.prompts
    asked = made.writers[False].ids(MINI.write_operation(lessons.prompts["taskweaver_plan"]))[:12]
    rows = [made[index].ids.flatten().tolist() for index in range(3)]
    assert any(row[place : place + len(asked)] == asked for row in rows for place in range(len(row)))
    without, unused = batches(seed=3), Batches(batches(seed=3).recipe, tiny_tokenizer(), LIBRARY, lessons=lessons)
    assert torch.equal(without[3].ids, unused[3].ids), "lessons that are there and not wanted change nothing"
    with pytest.raises(ValueError, match="recipe.lessons is 1.0, but there are no lessons"):
        Batches(recipe, tiny_tokenizer(), LIBRARY)
    with pytest.raises(ValueError, match="recipe.lessons must lie in"):
        Recipe(lessons=1.5)
