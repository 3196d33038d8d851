"""The vendor's single call: rendered prompts token by token, and answers read out of realistic texts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graphflow.backbone.turns import turn_format
from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.benchmarks.base import Example
from graphflow.benchmarks.gsm8k import gsm8k_score
from graphflow.benchmarks.hotpotqa import hotpot_f1
from graphflow.engine.batch import Batch
from graphflow.engine.episode import Task
from graphflow.engine.executor import EngineConfig, Executor
from graphflow.engine.tools.text import complete_program, final_answer
from graphflow.kv import KVConfig, StateMode
from graphflow.methods import MethodConfig, MethodError, build_method
from graphflow.methods.vendor import INSTRUCTIONS, VendorAsking, operation_of
from graphflow.paths import CONF
from graphflow.wgraph.library import Library, load_operations, load_workflows
from tests.backbone.test_turns import TEMPLATES, ids, learn, templated
from tests.tiny import tiny_backbone

LIBRARY = load_operations(CONF / "operations")
WORKFLOWS = load_workflows(CONF / "workflows", LIBRARY)
BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
PROGRAM = (
    "Please provide a self-contained Python script that solves the problem above in a markdown code block. It must "
    "define the function with the given name and arguments, and print nothing."
)
ROWS: dict[str, tuple[str, Any]] = {
    "gsm8k": ("gsm8k/test.jsonl", {"question": "How many eggs are left?", "answer": "9\n#### 9"}),
    "math": ("math/math500.jsonl", {"problem": "Find $x$.", "solution": r"\boxed{2}", "answer": "2"}),
    "hotpotqa": (
        "hotpotqa/hotpot_dev_distractor_v1.json",
        {"question": "Who was born first?", "answer": "Ann", "context": [["Ann", ["Ann was born in 1900."]]]},
    ),
    "humaneval": (
        "humaneval/HumanEval.jsonl",
        {
            "prompt": 'def f(x):\n    """Twice x."""\n',
            "entry_point": "f",
            "test": "def check(c):\n    assert c(1) == 2",
            "canonical_solution": "    return 2 * x\n",
        },
    ),
    "mbpp": (
        "mbpp/sanitized-mbpp.json",
        {
            "task_id": 2,
            "prompt": "Write a function to double a number.",
            "code": "def f(x):\n    return 2 * x",
            "test_imports": [],
            "test_list": ["assert f(1) == 2"],
        },
    ),
}
MESSAGES = {  # what the user says: the problem, the instruction, nothing else
    "gsm8k": f"How many eggs are left?\n\n{BOXED}",
    "math": f"Find $x$.\n\n{BOXED}",
    "hotpotqa": "[1] Ann: Ann was born in 1900.\n\nQuestion: Who was born first?\n\n"
    "Think step by step: find the passages that matter and what they say. Then end with a line 'The answer is: ...' "
    "that holds a few words only, or yes or no.",
    "humaneval": f'```python\ndef f(x):\n    """Twice x."""\n```\n\n{PROGRAM}',
    "mbpp": f"Write a function to double a number.\n\nThe function starts with: def f(x):\n\n{PROGRAM}",
}
BEFORE = {
    "qwen": "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n",
    "llama": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    "gemma": "<bos><start_of_turn>user\n",
}
AFTER = {
    "qwen": "<|im_end|>\n<|im_start|>assistant\n",
    "llama": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "<end_of_turn>\n<start_of_turn>model\n",
}


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {name: learn(name) for name in TEMPLATES}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Example]:
    """One example of each benchmark, from a row in its original form."""
    folder = tmp_path_factory.mktemp("data")
    found = {}
    for name, (file, row) in ROWS.items():
        path = Path(folder, file)
        path.parent.mkdir()
        path.write_text(json.dumps([row] if path.suffix == ".json" else row))
        found[name] = build_benchmark(BenchmarkConfig(name=name, data_dir=str(folder))).examples("test")[0]
    return found


def segments(kind: str, family: str, example: Example) -> tuple[str, str]:
    """The two segments that the engine makes: the task's and the operation's."""
    asking = VendorAsking()
    turns = asking.backbone(SimpleNamespace(turns=turn_format(family))).turns  # type: ignore[arg-type]
    return turns.write_task(asking.ask(example.task).text), turns.write_operation(operation_of(kind).prompt)


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("kind", INSTRUCTIONS)
def test_the_prompt_is_one_message_of_the_familys_template(kind, family, examples, tokenizers) -> None:
    task, operation = segments(kind, family, examples[kind])
    assert task + operation == BEFORE[family] + MESSAGES[kind] + AFTER[family]
    tokenizer = tokenizers[family]
    assert [*ids(tokenizer, task), *ids(tokenizer, operation)] == templated(tokenizer, ("user", MESSAGES[kind]))


@pytest.mark.parametrize(("kind", "limit"), [("gsm8k", 1024), ("math", 2048), ("hotpotqa", 1024), ("mbpp", 1024)])
def test_there_is_room_to_reason(kind, limit) -> None:
    operation = operation_of(kind)
    assert (operation.max_tokens, operation.temperature) == (limit, 0.0)


def task(kind: str, entry_point: str = "") -> Task:
    return Task("t", kind, kind, "text", entry_point=entry_point)


@pytest.mark.parametrize(
    ("answer", "read", "score"),
    [
        # Janet sells 16 - 3 - 4 = 9 eggs at 2 dollars: 18
        ("16 - 3 - 4 = 9.\n9 * 2 = 18.\n\n\\boxed{18}", r"\boxed{18}", 1.0),
        (r"She makes \(\boxed{\$18.00}\) a day, from 9 eggs.", r"\boxed{\$18.00}", 1.0),  # the last number is 9
        (r"First \boxed{9} eggs are left. So she makes \boxed{18} dollars.", r"\boxed{18}", 1.0),
        ("9 eggs at $2 each.\nThe answer is 18 dollars.\nI hope this helps! Ask me 2 more.", "18 dollars", 1.0),
        ("**Answer:** 18\n\nNote that 7 eggs were used.", "18", 1.0),
        ("She sells 9 eggs and makes 9 * 2 = 18", "She sells 9 eggs and makes 9 * 2 = 18", 1.0),  # cut off
        (r"so the total is \boxed{18", r"so the total is \boxed{18", 1.0),  # cut off inside the box
        ("She uses 3 eggs for breakfast and then", "She uses 3 eggs for breakfast and then", 0.0),
        ("I cannot answer this.", "I cannot answer this.", 0.0),
    ],
)
def test_numbers_are_read(answer: str, read: str, score: float) -> None:
    found = VendorAsking().read(task("gsm8k"), answer)
    assert found == read
    assert gsm8k_score(found, "18") == score


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (r"Hence $x = \boxed{\frac{1}{2}}$.", r"\boxed{\frac{1}{2}}"),
        (r"Either \boxed{3} or, as $x>0$, \boxed{\left\{1, 2\right\}}.", r"\boxed{\left\{1, 2\right\}}"),
        (r"The final answer is $\frac{1}{2}$. I hope it is correct.", r"$\frac{1}{2}$"),
        ("**The answer is: 7**", "7"),
        (r"We need $x^2 = 4$, so $x = ", r"We need $x^2 = 4$, so $x = "),
    ],
)
def test_formulas_are_read(answer: str, read: str) -> None:
    assert VendorAsking().read(task("math"), answer) == read


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Passage [1] says 1900, passage [2] says 1910.\n\nThe answer is: Ann Lee.", "Ann Lee"),
        ("Both are directors.\n**The answer is: yes**", "yes"),
        (r"So it is \boxed{Ann Lee}.", "Ann Lee"),
        ("The answer is: Bob? No, he was born later.\nThe answer is: Ann Lee", "Ann Lee"),
        ("Ann Lee", "Ann Lee"),
        ("[1] says that Ann was born in\nMarch and that she", "March and that she"),  # cut off
    ],
)
def test_short_answers_are_read(answer: str, read: str) -> None:
    found = VendorAsking().read(task("hotpotqa"), answer)
    assert found == read == final_answer(found)
    assert hotpot_f1(found, read) == 1.0


GOOD = "def f(x):\n    return 2 * x"


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        (f"Here it is:\n```python\n{GOOD}\n```\nIt doubles x.", GOOD),
        (f"```python\n{GOOD}\n```\nExample:\n```python\nprint(f(2))\n```", GOOD),  # the last block only calls it
        (f"First try:\n```python\ndef f(x):\n    return x\n```\nBetter:\n```python\n{GOOD}\n```", GOOD),
        (f"```bash\npip install x\n```\n```\n{GOOD}\n```", GOOD),
        (f"```python\n{GOOD}", GOOD),  # cut off before the fence closed
        (GOOD, GOOD),  # no fence
        ("```python\nf = lambda x: 2 * x\n```", "f = lambda x: 2 * x"),
    ],
)
def test_programs_are_read(answer: str, program: str) -> None:
    asked = task("mbpp", entry_point="f")
    assert complete_program(asked, VendorAsking().read(asked, answer)) == program


@pytest.mark.parametrize(
    ("prompt", "turns", "workflow"),
    [
        ("auto", "mini", "direct"),
        ("auto", "qwen", "vendor_gsm8k"),
        ("mini", "qwen", "direct"),
        ("vendor", "mini", "vendor_gsm8k"),
    ],
)
def test_the_prompt_goes_by_the_config_and_the_turn_format(prompt: str, turns: str, workflow: str) -> None:
    method = build_method(MethodConfig("vanilla", prompt=prompt), LIBRARY, WORKFLOWS, turns=turns)
    assert method.build(task("gsm8k")).name == workflow
    assert isinstance(method.asking, VendorAsking) == workflow.startswith("vendor")


def test_wrong_prompts_and_kinds_are_named() -> None:
    with pytest.raises(MethodError, match=r"method.prompt: unknown prompt 'vendr' \(did you mean 'vendor'\?\)"):
        MethodConfig("vanilla", prompt="vendr")
    method = build_method(MethodConfig("vanilla", prompt="vendor"), LIBRARY, WORKFLOWS)
    with pytest.raises(MethodError, match="is made for the kind 'poems'"):
        method.build(task("poems"))


def test_the_engine_serves_it_and_leaves_the_backbone_as_it_was(monkeypatch, examples) -> None:
    backbone = tiny_backbone()
    method = build_method(MethodConfig("vanilla", prompt="vendor"), LIBRARY, WORKFLOWS)
    seen, original = [], Batch.join

    def spy(self: Batch, requests: Any, keep_logits: bool = False) -> Any:
        seen.extend([*request.context.tokens, *request.pending, *request.prompt] for request in requests)
        return original(self, [request.__class__(**{**vars(request), "max_tokens": 2}) for request in requests])

    monkeypatch.setattr(Batch, "join", spy)
    kv = KVConfig(mode=StateMode.STATEFUL)
    executor = Executor(method.asking.backbone(backbone), method.asking.library(Library([])), kv, EngineConfig())
    asked = method.asking.ask(examples["gsm8k"].task)
    (episode,) = executor.run([asked], method.build_many)
    assert episode.workflow == "vendor_gsm8k" and episode.llm_calls == 1
    text = f"<|bos|><|task|>{MESSAGES['gsm8k']}<|end|><|out|>"
    assert seen == [backbone.encode(text)]
    assert backbone.turns.task == ("<|task|>", "<|end|>")
