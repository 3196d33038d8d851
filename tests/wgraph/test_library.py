import pytest

from graphflow.errors import UnknownNameError
from graphflow.paths import CONF
from graphflow.wgraph.library import Library, load_operations, load_workflows
from graphflow.wgraph.operation import Kind, OperationError
from graphflow.wgraph.validation import KINDS
from graphflow.wgraph.workflow import WorkflowError

THINK = "name: think\nkind: llm\naccepts: [task]\nproduces: answer\nprompt: Think.\n"
FLOW = "name: flow\nkinds: [gsm8k]\nsteps:\n  a: {op: think, in: [task]}\nanswer: a\n"


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_a_library_is_a_sorted_mapping(library):
    assert list(library) == sorted(library.operations)
    assert "think" in library
    assert "thnk" not in library
    assert library["think"].name == "think"
    with pytest.raises(UnknownNameError) as caught:
        library["thnk"]
    assert str(caught.value).startswith("unknown operation 'thnk' (did you mean 'think'?); allowed: code, first, ")


def test_a_library_holds_a_name_once(library):
    with pytest.raises(OperationError, match="operations given twice: think"):
        Library([library["think"], library["think"]])


def test_a_folder_is_read(tmp_path):
    library = load_operations(write(tmp_path / "operations", think=THINK))
    flows = load_workflows(write(tmp_path / "workflows", flow=FLOW), library)
    assert list(library) == ["think"]
    assert list(flows) == ["flow"]
    assert flows["flow"].step("a").op == "think"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (THINK + "kidn: llm\n", "think.yaml: operation: unknown key 'kidn' (did you mean 'kind'?); allowed: "),
        (THINK + "kind: llm\n", "think.yaml: not readable as YAML in line 6: key 'kind' is given twice"),
        (
            THINK.replace("answer", "anser"),
            "think.yaml: operation 'think': produces: unknown type 'anser' (did you mean",
        ),
        (THINK.replace("think", "thought"), "think.yaml: name must be the name of the file, 'think', not 'thought'"),
        ("- a\n- b\n", "think.yaml: operation must be a mapping"),
        ("name: [\n", "think.yaml: not readable as YAML in line 2: "),
    ],
)
def test_the_file_of_a_wrong_operation_is_named(tmp_path, text, message):
    with pytest.raises(OperationError) as caught:
        load_operations(write(tmp_path / "operations", think=text))
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            FLOW.replace("op: think", "op: thnk"),
            "flow.yaml: workflow 'flow', step 'a': op: unknown operation 'thnk' (did",
        ),
        (FLOW.replace("op:", "opp:"), "flow.yaml: step 'a': unknown key 'opp' (did you mean 'op'?); allowed: in, op, "),
        (FLOW.replace("[gsm8k]", "[gms8k]"), "flow.yaml: workflow 'flow': kinds: unknown kind 'gms8k' (did you mean"),
        (
            FLOW.replace("[gsm8k]", "[]"),
            "flow.yaml: kinds must name at least one of gsm8k, math, hotpotqa, humaneval, mbpp",
        ),
        (FLOW.replace("name: flow", "name: flaw"), "flow.yaml: name must be the name of the file, 'flow', not 'flaw'"),
        (
            FLOW.replace("answer: a", "  a: {op: think, in: [task]}\nanswer: a"),
            "flow.yaml: not readable as YAML in line 5: key 'a' is given twice",
        ),
    ],
)
def test_the_file_of_a_wrong_workflow_is_named(tmp_path, text, message):
    library = load_operations(write(tmp_path / "operations", think=THINK))
    with pytest.raises(WorkflowError) as caught:
        load_workflows(write(tmp_path / "workflows", flow=text), library)
    assert message in str(caught.value)


def test_an_empty_folder_is_an_error(tmp_path, library):
    with pytest.raises(OperationError, match="no .*yaml file in this folder"):
        load_operations(tmp_path)
    with pytest.raises(WorkflowError, match="no .*yaml file in this folder"):
        load_workflows(tmp_path, library)


# The files of the repository itself.


@pytest.fixture(scope="module")
def repository():
    operations = load_operations(CONF / "operations")
    return operations, load_workflows(CONF / "workflows", operations)


def test_every_kind_has_workflows_and_a_vanilla_one(repository):
    _, flows = repository
    for kind in KINDS:
        names = [name for name, flow in flows.items() if kind in flow.kinds]
        assert len(names) >= 3
        assert ("code" if kind in ("humaneval", "mbpp") else "direct") in names
    shared = [name for name, flow in flows.items() if len(flow.kinds) > 1]
    assert len(shared) >= 10


def test_no_two_workflows_are_the_same(repository):
    _, flows = repository
    assert len({flow.fingerprint for flow in flows.values()}) == len(flows)


def test_the_vanilla_workflows_are_one_call(repository):
    operations, flows = repository
    for name in ("direct", "code"):
        (step,) = flows[name].steps
        assert operations[step.op].kind is Kind.LLM
        assert (step.inputs, step.samples, step.when) == (("task",), 1, None)


def test_calls_of_some_repository_workflows(repository):
    operations, flows = repository
    expected = {"cot": 1, "cot_ensemble": 3 + 1, "cot_vote": 3, "lookup2_answer": 3, "code_tests_fix_loop": 1 + 2}
    assert {name: flows[name].llm_calls(operations) for name in expected} == expected
