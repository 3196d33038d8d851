"""HotpotQA scoring by hand and on real rows."""

import json
import warnings

import pytest

from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.benchmarks.hotpotqa import aflow_hotpot_f1, hotpot_em, hotpot_f1, normalize_answer


def test_normalisation():
    assert normalize_answer("The  U.S. of an A!") == "us of"
    assert normalize_answer("an\u00a0\u00c9toile, THE\t2nd") == "\u00e9toile 2nd"
    assert normalize_answer("theory-of a-mind") == "theoryof amind"  # articles are whole words
    assert normalize_answer("\u201cquoted\u201d") == "\u201cquoted\u201d"  # only ASCII punctuation goes


@pytest.mark.parametrize(
    ("answer", "reference", "f1", "em", "aflow"),
    [
        ("the Danube", "Danube", 1.0, 1.0, 1.0),
        ("river Danube", "Danube", 2 / 3, 0.0, 2 / 3),  # precision 1/2, recall 1
        ("a b b c", "b b d", 2 * (2 / 3) * (2 / 3) / (4 / 3), 0.0, 2 / 3),  # "a" is an article: 2 of 3, 2 of 3
        ("b b b", "b", 1 / 2, 0.0, 1 / 2),  # one match only: precision 1/3, recall 1
        ("Rhine", "Danube", 0.0, 0.0, 0.0),
        ("yes", "yes", 1.0, 1.0, 1.0),
        ("Yes.", "yes", 1.0, 1.0, 1.0),
        ("yes", "no", 0.0, 0.0, 0.0),
        ("yes it is", "yes", 0.0, 0.0, 1 / 2),  # precision 1/3, recall 1: plain F1
        ("no", "no one", 0.0, 0.0, 2 / 3),
        ("noanswer", "noanswer given", 0.0, 0.0, 2 / 3),
        ("1,000", "1000", 1.0, 1.0, 1.0),
        ("", "Danube", 0.0, 0.0, 0.0),
        ("the", "Danube", 0.0, 0.0, 0.0),  # nothing is left of it
        ("I cannot tell.", "Danube", 0.0, 0.0, 0.0),
    ],
)
def test_score(answer, reference, f1, em, aflow):
    assert hotpot_f1(answer, reference) == pytest.approx(f1)
    assert hotpot_em(answer, reference) == em
    assert aflow_hotpot_f1(answer, reference) == pytest.approx(aflow)


@pytest.mark.parametrize(("scoring", "exact"), [("strict", 3), ("aflow", 2)])
def test_exact_matches_are_counted_beside_f1(tmp_path, scoring, exact):
    (tmp_path / "hotpotqa").mkdir()
    row = {"_id": "a", "question": "Q?", "answer": "Danube", "context": [["A", ["One."]]]}
    (tmp_path / "hotpotqa" / "hotpot_dev_distractor_v1.json").write_text(json.dumps([row]))
    benchmark = build_benchmark(BenchmarkConfig(name="hotpotqa", data_dir=str(tmp_path), scoring=scoring))
    (example,) = benchmark.examples("test")
    assert benchmark.statistics() == {"answers": 0, "exact_matches": 0}
    # A sentence before the answer is part of it for AFlow; F1 alone gives "river Danube" points.
    benchmark.score_many([example] * 4, ["the Danube", "Danube.", "It is long.\nAnswer: Danube", "river Danube"])
    assert benchmark.statistics() == {"answers": 4, "exact_matches": exact}


def test_every_real_row(real_benchmark):
    benchmark = real_benchmark("hotpotqa")
    examples = benchmark.examples("validation") + benchmark.examples("test")
    assert len(examples) >= 100
    for example in examples:
        assert benchmark.score(example, f"From the passages.\nAnswer: {example.reference}") == 1.0, example.task.id
        assert benchmark.score(example, "Answer: zyzzyva") == 0.0
        assert len(example.task.passages) >= 2
        assert all(passage in example.task.text for passage in example.task.passages)
        assert example.task.family in ("bridge", "comparison")
        assert example.task.text.endswith("a few words only, or yes or no.")


def test_the_sample_of_training_rows_says_what_it_is(real_benchmark, tmp_path, data_dir):
    with pytest.warns(UserWarning, match="distractor_sample.jsonl is read in place of hotpot_dev_distractor_v1.json"):
        examples = real_benchmark("hotpotqa").examples("test")
    (tmp_path / "hotpotqa").mkdir()
    rows = (data_dir / "hotpotqa" / "distractor_sample.jsonl").read_text().splitlines()
    (tmp_path / "hotpotqa" / "hotpot_dev_distractor_v1.json").write_text(f"[{','.join(rows)}]")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = build_benchmark(BenchmarkConfig(name="hotpotqa", data_dir=str(tmp_path)))
        assert named.examples("test") == examples


@pytest.mark.slow  # importing evaluate takes seconds
def test_the_metric_scores_what_the_benchmark_scores(real_benchmark):
    from graphflow.benchmarks.metrics import AnswerF1

    answer = "Both passages say so.\nAnswer: {}"
    for scoring in ("strict", "aflow"):
        benchmark = real_benchmark("hotpotqa", scoring=scoring)
        examples = benchmark.examples("test", limit=10)
        texts = [answer.format(example.reference) for example in examples]
        wanted = benchmark.score_many(examples, texts)
        found = AnswerF1(keep_in_memory=True).compute(
            predictions=texts, references=[example.reference for example in examples], scoring=scoring
        )
        assert found["f1"] == pytest.approx(sum(wanted) / 10)
        assert found["em"] == (scoring == "strict")


def test_aflow_asks_for_what_it_scores_the_answer_alone(real_benchmark):
    benchmark = real_benchmark("hotpotqa", scoring="aflow")
    for example in benchmark.examples("test"):
        assert benchmark.score(example, example.reference) == 1.0
        assert benchmark.score(example, "zyzzyva") == 0.0
        assert benchmark.score(example, f"From the passages.\nAnswer: {example.reference}") < 1.0
        assert "Answer:" not in example.task.text
