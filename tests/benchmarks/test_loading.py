"""Loading, splits, config errors and the `evaluate` metrics."""

import json
import shutil

import pytest

from graphflow.benchmarks import NAMES, BenchmarkConfig, BenchmarkError, build_benchmark
from graphflow.engine.sandbox import bubblewrap_problem


def write_rows(folder, rows):
    (folder / "gsm8k").mkdir(exist_ok=True)
    (folder / "gsm8k" / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


@pytest.fixture
def local(tmp_path):
    write_rows(tmp_path, [{"question": f"What is {i} + 1?", "answer": f"It is.\n#### {i + 1}"} for i in range(50)])
    return tmp_path


def gsm8k(folder, **fields):
    return build_benchmark(BenchmarkConfig(name="gsm8k", data_dir=str(folder), **fields))


def test_splits_are_disjoint_complete_and_repeatable(local):
    validation, test = (gsm8k(local).examples(split) for split in ("validation", "test"))
    assert (len(validation), len(test)) == (10, 40)  # 20 % and 80 % of 50
    ids = {example.task.id for example in validation + test}
    assert ids == {f"gsm8k/test/{i}" for i in range(50)}
    assert gsm8k(local).examples("validation") == validation
    assert gsm8k(local, seed=1).examples("validation") != validation
    assert len(gsm8k(local, validation_fraction=0.5).examples("test")) == 25


def test_limits_and_sizes(local):
    full = gsm8k(local).examples("test")
    assert gsm8k(local).examples("test", limit=3) == full[:3]
    assert gsm8k(local).examples("test", limit=0) == []
    assert gsm8k(local, limit=4).examples("test") == full[:4]
    assert gsm8k(local, limit=4).examples("test", limit=6) == full[:6]
    assert gsm8k(local, test_size=5).examples("test") == full[:5]
    with pytest.raises(BenchmarkError, match="benchmark.test_size is 41, but gsm8k has 40"):
        gsm8k(local, test_size=41).examples("test")


def test_task_holds_the_question_and_the_format_but_not_the_answer(local):
    example = gsm8k(local).examples("test", limit=1)[0]
    number = int(example.task.id.split("/")[-1])
    assert example.task.text.startswith(f"What is {number} + 1?\n\n")
    assert "####" in example.task.text.split("\n\n")[1]
    assert example.reference == str(number + 1)
    assert "It is." not in example.task.text


def test_errors_name_the_file_the_row_and_the_field(local):
    with pytest.raises(BenchmarkError, match="must be a folder that holds gsm8k/test.jsonl, got '.*absent'"):
        gsm8k(local / "absent").examples("test")
    with pytest.raises(BenchmarkError, match="lacks gsm8k/train.jsonl; .*openai/gsm8k.*fit.split=validation"):
        gsm8k(local).examples("train")
    write_rows(local, [{"question": "q", "answer": "#### 1"}, {"question": "q", "reply": "#### 1"}])
    with pytest.raises(BenchmarkError, match="row 2: field 'answer' is missing, there are question, reply"):
        gsm8k(local).examples("validation") + gsm8k(local).examples("test")
    write_rows(local, [{"question": "q", "answer": 1}])
    with pytest.raises(BenchmarkError, match="row 1: field 'answer' must be str, got int"):
        gsm8k(local).examples("test")
    write_rows(local, [{"question": "q", "answer": "one"}])
    with pytest.raises(BenchmarkError, match="must end in '#### number'"):
        gsm8k(local).examples("test")
    broken = "is not one JSON object a line \\(line 3\\): Expecting"
    row = '{"question": "q", "answer": "#### 1"}'
    for text, message in ((f"{row}\n\n{row[:-1]},\n", broken), ("", "must hold one or more"), ("[1]", "objects")):
        (local / "gsm8k" / "test.jsonl").write_text(text)
        with pytest.raises(BenchmarkError, match=message):
            gsm8k(local).examples("test")


def test_without_the_hub_the_error_names_both_ways_out(monkeypatch):
    import datasets

    def refuse(*arguments, **options):
        assert options["revision"] == "e53f048856ff4f594e959d75785d2c2d37b678ee"
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        BenchmarkError, match=r"\(ConnectionError: no route\): give access to the hub, or set benchmark.d"
    ):
        build_benchmark(BenchmarkConfig(name="gsm8k")).examples("test")


def test_hub_rows_are_read_over_all_configs_and_splits(monkeypatch):
    import datasets

    asked = []

    def load(name, config, *, split, revision):
        asked.append((name, config, split))
        return [{"problem": "p", "solution": rf"\boxed{{{len(asked)}}}", "level": "Level 3", "type": "Algebra"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    examples = build_benchmark(BenchmarkConfig(name="math")).examples("train")
    assert [example.reference for example in examples] == list("1234567")
    assert asked[0] == ("EleutherAI/hendrycks_math", "algebra", "train")
    assert (examples[0].task.level, examples[0].task.family) == (3, "Algebra")
    with pytest.raises(
        BenchmarkError, match="^openai/gsm8k test, row 1: field 'question' is missing, there are problem"
    ):
        build_benchmark(BenchmarkConfig(name="gsm8k")).examples("test")


def test_unknown_names_and_values():
    with pytest.raises(BenchmarkError, match="got 'gms8k', did you mean 'gsm8k'"):
        build_benchmark(BenchmarkConfig(name="gms8k"))
    with pytest.raises(BenchmarkError, match="split of gsm8k must be one of train, validation, test, got 'dev'"):
        build_benchmark(BenchmarkConfig(name="gsm8k")).examples("dev")
    with pytest.raises(
        BenchmarkError, match="benchmark.variant must be one of math500, full, aflow for math, got 'har"
    ):
        build_benchmark(BenchmarkConfig(name="math", variant="hard"))
    with pytest.raises(BenchmarkError, match="benchmark.variant must be one of original, aflow for gsm8k, got 'full'"):
        build_benchmark(BenchmarkConfig(name="gsm8k", variant="full"))
    with pytest.raises(BenchmarkError, match="benchmark.scoring must be strict for mini-gsm8k, got 'aflow'"):
        build_benchmark(BenchmarkConfig(name="mini-gsm8k", scoring="aflow"))
    for field, value in (("limit", -1), ("validation_fraction", 1.0), ("scoring", "loose")):
        with pytest.raises(BenchmarkError, match=rf"benchmark\.{field} must .* got"):
            BenchmarkConfig(**{field: value})


def test_every_benchmark_says_what_it_is():
    metrics = {name: build_benchmark(BenchmarkConfig(name=name)).metric_name for name in NAMES}
    assert metrics == {
        "gsm8k": "accuracy", "math": "accuracy", "hotpotqa": "f1", "humaneval": "pass@1", "mbpp": "pass@1"
    }  # fmt: skip
    assert all(build_benchmark(BenchmarkConfig(name=name)).kind == name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_scoring_has_a_version_of_its_own(name):
    strict, aflow = (build_benchmark(BenchmarkConfig(name=name, scoring=scoring)) for scoring in ("strict", "aflow"))
    assert (strict.version, aflow.version) == (strict.versions["strict"], strict.versions["aflow"])
    assert all(isinstance(version, int) for version in strict.versions.values())


def test_scoring_is_chosen_in_the_config(local):
    answer = "#### 8 apples in 2 bags"  # the marker counts, or the last number
    scores = {}
    for scoring in ("strict", "aflow"):
        benchmark = gsm8k(local, scoring=scoring)
        example = next(item for item in benchmark.examples("test") if item.reference in ("2", "8"))
        scores[scoring] = benchmark.score(example, answer)
        assert benchmark.score_many([example], [answer]) == [scores[scoring]]
    assert sorted(scores.values()) == [0.0, 1.0]


def test_original_forms_of_files_are_read(tmp_path):
    import gzip

    row = {
        "prompt": 'def f(x):\n    """Doubles."""\n',
        "entry_point": "f",
        "test": "def check(f):\n    assert f(1) == 2",
        "canonical_solution": "    return 2 * x",
    }
    (tmp_path / "humaneval").mkdir()
    packed = gzip.compress("\n".join([json.dumps(row)] * 5).encode())
    (tmp_path / "humaneval" / "HumanEval.jsonl.gz").write_bytes(packed)
    benchmark = build_benchmark(BenchmarkConfig(name="humaneval", data_dir=str(tmp_path)))
    assert [len(benchmark.examples(split)) for split in ("train", "validation", "test")] == [1, 1, 4]
    for broken in (b"plain", packed[:-9], packed[:40] + b"\xff" * 40 + packed[80:]):
        (tmp_path / "humaneval" / "HumanEval.jsonl.gz").write_bytes(broken)
        with pytest.raises(BenchmarkError, match="HumanEval.jsonl.gz is not a whole gzip file"):
            build_benchmark(BenchmarkConfig(name="humaneval", data_dir=str(tmp_path))).examples("test")
    (tmp_path / "humaneval" / "HumanEval.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "p"}'))
    with pytest.raises(BenchmarkError, match="^humaneval/HumanEval.jsonl.gz, row 1: field 'entry_point' is missing"):
        build_benchmark(BenchmarkConfig(name="humaneval", data_dir=str(tmp_path))).examples("test")


def both_parts(benchmark):
    return [item for split in ("validation", "test") for item in benchmark.examples(split)]


@pytest.mark.parametrize("variant", ["original", "aflow"])
def test_mbpp_is_the_same_from_the_hub_and_from_the_file(tmp_path, monkeypatch, variant):
    import datasets

    code = "def f(x):\n    return x"
    rows = [
        {"task_id": i, "prompt": f"P{i}", "code": code, "test_imports": [], "test_list": [f"assert f({i}) == {i}"]}
        for i in range(2, 2 + 427)
    ]
    splits = {"prompt": rows[:7], "test": rows[7:264], "validation": rows[264:307], "train": rows[307:]}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, *, split, revision: splits[split])
    (tmp_path / "mbpp").mkdir()
    (tmp_path / "mbpp" / "sanitized-mbpp.json").write_text(json.dumps(rows))
    hub, file = (
        both_parts(build_benchmark(BenchmarkConfig(name="mbpp", data_dir=folder, variant=variant)))
        for folder in ("", str(tmp_path))
    )
    assert [item.task.id for item in hub] == [item.task.id for item in file]
    assert hub == file


@pytest.mark.parametrize("name", ["math", "humaneval", "hotpotqa", "mbpp"])
def test_the_order_of_real_rows_does_not_matter(tmp_path, data_dir, real_benchmark, name):
    (source,) = (data_dir / name).iterdir()
    target = tmp_path / name / source.name
    target.parent.mkdir()
    if source.suffix == ".json":
        target.write_text(json.dumps(json.loads(source.read_text())[::-1]))
    else:
        target.write_text("\n".join(source.read_text().splitlines()[::-1]))
    turned = build_benchmark(BenchmarkConfig(name=name, data_dir=str(tmp_path)))
    assert both_parts(turned) == both_parts(real_benchmark(name))


def test_a_revision_is_one_of_the_tested_repository(monkeypatch):
    import datasets

    asked = {}

    def load(name, config, *, split, revision):
        asked[name, split] = revision
        return [{"problem": f"P{i}", "solution": r"\boxed{1}", "answer": "1"} for i in range(5)]

    monkeypatch.setattr(datasets, "load_dataset", load)
    for variant in ("math500", "full"):
        benchmark = build_benchmark(BenchmarkConfig(name="math", revision="abc", variant=variant))
        asked.clear()
        for split in ("train", "test"):
            benchmark.examples(split)
        training = asked["EleutherAI/hendrycks_math", "train"]
        if variant == "full":
            assert set(asked.values()) == {"abc"}  # one repository has both
        else:
            assert asked["HuggingFaceH4/MATH-500", "test"] == "abc"
            assert training == "21a5633873b6a120296cce3e2df9d5550074f4a3"


MBPP_ROW = {"task_id": 2, "prompt": "p", "code": "def f(x): return x", "test_imports": [], "test_list": ["assert f(1)"]}
HUMANEVAL_ROW = {
    "task_id": "HumanEval/0", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "    return x\n",
    "test": "def check(f):\n    assert f(1)",
}  # fmt: skip
HOTPOTQA_ROW = {"_id": "a", "question": "q", "answer": "a", "context": [["A", ["One."]]], "type": "bridge"}


@pytest.mark.parametrize(
    ("name", "file", "row", "field", "value", "message"),
    [
        ("mbpp", "sanitized-mbpp.json", MBPP_ROW, "test_list", [1], "must be a list of str, got 1 as its item 1"),
        ("mbpp", "sanitized-mbpp.json", MBPP_ROW, "test_list", ["assert f(1"], r"is not Python \(.*\): 'assert f\(1'"),
        ("mbpp", "sanitized-mbpp.json", MBPP_ROW, "test_list", "assert f(1)", "must be list, got str"),
        ("mbpp", "sanitized-mbpp.json", MBPP_ROW, "test_imports", [None], "must be a list of str, got None as its"),
        ("mbpp", "sanitized-mbpp.json", MBPP_ROW, "test_imports", ["import"], "is not Python"),
        ("mbpp", "sanitized-mbpp.json", MBPP_ROW, "code", "a\0", "is not Python"),
        ("hotpotqa", "hotpot_dev_distractor_v1.json", HOTPOTQA_ROW, "level", ["hard"],
         r"must be one of easy, medium, hard, got \['hard'\]"),
        ("hotpotqa", "hotpot_dev_distractor_v1.json", HOTPOTQA_ROW, "type", 3, "must be .* comparison, got 3"),
        ("humaneval", "HumanEval.jsonl", HUMANEVAL_ROW, "test", "def check(", r"is not Python \(.*\): 'def check\('"),
        ("humaneval", "HumanEval.jsonl", HUMANEVAL_ROW, "test", "x = 1", "must define the function 'check'"),
        ("humaneval", "HumanEval.jsonl", HUMANEVAL_ROW, "canonical_solution", "  (", "is not Python"),
        ("humaneval", "HumanEval.jsonl", HUMANEVAL_ROW, "entry_point", "f(", r"must be .* function, got 'f\('"),
    ],
)  # fmt: skip
def test_a_field_of_another_form_is_named_when_it_is_loaded(tmp_path, name, file, row, field, value, message):
    (tmp_path / name).mkdir()
    rows = [row, row, {**row, field: value}]
    lines = json.dumps(rows) if file.endswith(".json") else "\n".join(map(json.dumps, rows))
    benchmark = build_benchmark(BenchmarkConfig(name=name, data_dir=str(tmp_path)))
    (tmp_path / name / file).write_text(json.dumps([row] * 3) if file.endswith(".json") else lines.splitlines()[0])
    assert both_parts(benchmark)
    (tmp_path / name / file).write_text(lines)
    with pytest.raises(BenchmarkError, match=f"{file}, row 3: field '{field}' {message}"):
        both_parts(build_benchmark(BenchmarkConfig(name=name, data_dir=str(tmp_path))))


def math_rows(folder, counts):
    """The original MATH: a folder a subject, a file a problem; the answer of problem i is i."""
    for subject, level, count in counts:
        place = folder / "math" / "test" / subject.lower().replace(" & ", "_and_").replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        first = len(list(place.iterdir()))
        for i in range(first, first + count):
            row = {
                "problem": f"{subject} {i}?",
                "level": f"Level {level}",
                "type": subject,
                "solution": rf"\boxed{{{i}}}",
            }
            (place / f"{i}.json").write_text(json.dumps(row))


def test_the_original_math_folder_and_a_file_in_any_order_give_the_same_examples(tmp_path):
    math_rows(tmp_path, [("Number Theory", 2, 11), ("Algebra", 3, 1)])
    benchmark = build_benchmark(BenchmarkConfig(name="math", data_dir=str(tmp_path), variant="full"))
    found = both_parts(benchmark)
    rows = [json.loads(file.read_text()) for file in (tmp_path / "math" / "test").rglob("*.json")]
    assert len(found) == len(rows) == 12
    (tmp_path / "lines" / "math").mkdir(parents=True)
    for step in (5, 7):  # two orders, neither of them sorted
        mixed = [rows[i * step % 12] for i in range(12)]
        (tmp_path / "lines" / "math" / "test.jsonl").write_text("\n".join(map(json.dumps, mixed)))
        config = BenchmarkConfig(name="math", data_dir=str(tmp_path / "lines"), variant="full")
        assert both_parts(build_benchmark(config)) == found
    del mixed[3]["solution"]
    (tmp_path / "lines" / "math" / "test.jsonl").write_text("\n".join(map(json.dumps, mixed)))
    with pytest.raises(BenchmarkError, match="row 4: field 'solution' is missing"):
        both_parts(build_benchmark(config))
    with pytest.raises(BenchmarkError, match="lacks math/train.jsonl or math/train/"):
        benchmark.examples("train")


def test_aflows_part_of_math_is_level_five_of_four_subjects(tmp_path):
    fives = [("Counting & Probability", 123), ("Number Theory", 154), ("Prealgebra", 193), ("Precalculus", 135)]
    math_rows(tmp_path, [(subject, 5, count) for subject, count in fives] + [("Algebra", 5, 3), ("Prealgebra", 4, 2)])
    config = BenchmarkConfig(name="math", data_dir=str(tmp_path), variant="aflow")
    validation, test = (build_benchmark(config).examples(split) for split in ("validation", "test"))
    assert (len(validation), len(test)) == (119, 486)
    assert len({item.task.id for item in validation + test}) == 605
    assert all(item.task.level == 5 and item.task.family != "Algebra" for item in validation + test)
    (tmp_path / "math" / "test" / "precalculus" / "0.json").unlink()
    with pytest.raises(BenchmarkError, match="has 605 rows of level 5 .* there are 604 such rows among 609"):
        build_benchmark(config).examples("test")


def test_aflows_split_is_numpys_shuffle_with_seed_42(tmp_path):
    write_rows(tmp_path, [{"question": f"Q{i}?", "answer": f"#### {i}"} for i in range(1319)])
    validation, test = (gsm8k(tmp_path, variant="aflow").examples(split) for split in ("validation", "test"))
    assert (len(validation), len(test)) == (264, 1055)
    # The first ten rows of a published sample of AFlow's validation file, as indices into GSM8K's test file.
    published = {895, 184, 1252, 76, 1004, 610, 777, 1204, 196, 1083}
    assert published <= {int(item.reference) for item in validation}
    write_rows(tmp_path, [{"question": "Q?", "answer": "#### 1"}] * 100)
    with pytest.raises(BenchmarkError, match="benchmark.variant=aflow of gsm8k needs 1319 rows, the file has 100"):
        gsm8k(tmp_path, variant="aflow").examples("test")


def test_hotpotqa_reads_both_forms_of_its_context_and_refuses_others(tmp_path):
    (tmp_path / "hotpotqa").mkdir()
    file = tmp_path / "hotpotqa" / "hotpot_dev_distractor_v1.json"
    pairs = [["A", ["One.", " Two."]], ["B", ["Three."]]]
    row = {"question": "Q?", "answer": "x", "type": "bridge", "level": "hard"}
    lists = {"title": ["A", "B"], "sentences": [["One.", " Two."], ["Three."]]}
    for context in (pairs, lists):
        file.write_text(json.dumps([{**row, "context": context}] * 5))
        item = build_benchmark(BenchmarkConfig(name="hotpotqa", data_dir=str(tmp_path))).examples("test")[0]
        assert item.task.passages == ("A: One. Two.", "B: Three.")
        assert item.task.text.startswith("[1] A: One. Two.\n[2] B: Three.\n\nQuestion: Q?\n\n")
        assert (item.task.level, item.task.family) == (3, "bridge")
    for context in ("text", [], [["A", "One."]], [["A"]], {"title": []}, None):
        file.write_text(json.dumps([{**row, "context": context}] * 5))
        with pytest.raises(BenchmarkError, match="field 'context' must hold"):
            build_benchmark(BenchmarkConfig(name="hotpotqa", data_dir=str(tmp_path))).examples("test")


def test_files_in_another_encoding_or_form_are_refused(local):
    file = local / "gsm8k" / "test.jsonl"
    file.write_bytes('{"question": "caf\u00e9", "answer": "#### 1"}'.encode("latin-1"))
    with pytest.raises(BenchmarkError, match=r"is not one JSON object a line \(line 1\): 'utf-8' codec"):
        gsm8k(local).examples("test")
    file.write_bytes(b"\xef\xbb\xbf" + b'{"question": "q", "answer": "#### 1"}\r\n' * 5)  # a byte order mark, CRLF
    assert len(gsm8k(local).examples("test")) == 4
    (local / "mbpp").mkdir()
    (local / "mbpp" / "sanitized-mbpp.json").write_text('{"a": 1}\n{"b": 2}')  # lines where a list is wanted
    with pytest.raises(BenchmarkError, match="sanitized-mbpp.json is not a JSON list"):
        build_benchmark(BenchmarkConfig(name="mbpp", data_dir=str(local))).examples("test")
    row = {"prompt": "p", "code": "def f(:", "test_imports": [], "test_list": ["assert f(1)"]}
    (local / "mbpp" / "sanitized-mbpp.json").write_text(json.dumps([row] * 5))
    with pytest.raises(BenchmarkError, match=r"row \d: field 'code' is not Python \(.*\): 'def f\(:'"):
        build_benchmark(BenchmarkConfig(name="mbpp", data_dir=str(local))).examples("test")


@pytest.mark.parametrize(
    "failure", ["ConnectError", "DatasetNotFoundError", "ValueError", "TimeoutError", "RuntimeError"]
)
def test_whatever_keeps_the_hub_away_the_error_names_both_ways_out(monkeypatch, failure):
    import datasets
    import httpx

    kinds = {
        "ConnectError": httpx.ConnectError("no name"),
        "DatasetNotFoundError": datasets.exceptions.DatasetNotFoundError("gated"),
        "ValueError": ValueError("BuilderConfig 'main' not found"),
        "TimeoutError": TimeoutError(),
        "RuntimeError": RuntimeError("Dataset scripts are no longer supported, but found gsm8k.py\nmore"),
    }

    def refuse(*arguments, **options):
        raise kinds[failure]

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    for name in NAMES:
        with pytest.raises(BenchmarkError, match=f"{failure}.*: give access to the hub, or set benchmark.data_dir to"):
            build_benchmark(BenchmarkConfig(name=name)).examples("test")


def test_what_is_asked_of_the_hub(monkeypatch):
    import datasets

    asked = []

    def load(name, config, *, split, revision):
        asked.append((name, config, split))
        assert len(revision) == 40 and int(revision, 16)
        raise ConnectionError

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name in NAMES:
        with pytest.raises(BenchmarkError):
            build_benchmark(BenchmarkConfig(name=name)).examples("test")
    assert asked == [
        ("openai/gsm8k", "main", "test"),
        ("HuggingFaceH4/MATH-500", None, "test"),
        ("hotpotqa/hotpot_qa", "distractor", "validation"),
        ("openai/openai_humaneval", None, "test"),
        ("google-research-datasets/mbpp", "sanitized", "test"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_task_asks_for_the_form_that_is_scored(real_benchmark, name):
    wanted = {
        "gsm8k": "'#### N'", "math": r"\boxed{}", "hotpotqa": "'Answer: ...'",
        "humaneval": "```python", "mbpp": "```python",
    }  # fmt: skip
    for example in real_benchmark(name).examples("test", limit=5):
        assert wanted[name] in example.task.text
        assert example.task.text == example.task.text.strip()


@pytest.mark.slow  # importing evaluate takes seconds
def test_metrics_load_without_a_hub():
    from graphflow.benchmarks.metrics import AnswerF1, MathAccuracy, NumberAccuracy, PassAt1

    pairs = {"predictions": ["so 18", "3"], "references": ["18", "4"]}
    assert NumberAccuracy(keep_in_memory=True).compute(**pairs) == {"accuracy": 0.5}
    assert MathAccuracy(keep_in_memory=True).compute(**pairs) == {"accuracy": 0.0}  # "so 18" is no number
    answers = {"predictions": ["river Danube", "yes"], "references": ["Danube", "yes"]}
    scores = AnswerF1(keep_in_memory=True).compute(**answers)
    assert scores == {"f1": pytest.approx((2 / 3 + 1) / 2), "em": 0.5}
    assert AnswerF1(keep_in_memory=True).compute(**answers, scoring="aflow") == scores  # no special case here
    remark = {"predictions": ["#### 18 in 2 days"], "references": ["18"]}
    assert NumberAccuracy(keep_in_memory=True).compute(**remark) == {"accuracy": 1.0}
    assert NumberAccuracy(keep_in_memory=True).compute(**remark, scoring="aflow") == {"accuracy": 0.0}
    with pytest.raises(BenchmarkError, match="scoring must be one of strict, aflow, got 'loose'"):
        NumberAccuracy(keep_in_memory=True).compute(**remark, scoring="loose")
    problem = bubblewrap_problem(shutil.which("bwrap") or "")
    if problem:
        pytest.skip(f"programs cannot be isolated here: {problem}")
    programs = {"predictions": ["x = 1", "x = 2"], "references": ["assert x == 1"] * 2}
    assert PassAt1(keep_in_memory=True).compute(**programs) == {"pass@1": 0.5}
    named = {"predictions": ["def f():\n    return 1"], "references": ["assert f() == 1"]}
    scores = PassAt1(keep_in_memory=True).compute(**named, scoring="aflow", entry_points=["f"])
    assert scores == {"pass@1": 1.0}
