import pytest

from graphflow.wgraph.operation import Convention, Kind, Operation, OperationError

LLM = {"name": "think", "kind": "llm", "accepts": ["task"], "produces": "answer", "prompt": "Think."}
TOOL = {"name": "run", "kind": "tool", "accepts": ["code"], "produces": "result"}


def test_the_values_of_a_file_become_typed():
    operation = Operation.from_dict(
        {**LLM, "requires": ["task"], "convention": "code", "temperature": 1, "max_tokens": 8, "judge": True}
    )
    assert operation == Operation(
        "think", Kind.LLM, ("task",), "answer", "Think.", ("task",), Convention.CODE, 1.0, 8, judge=True
    )
    assert isinstance(operation.temperature, float)


def test_defaults():
    operation = Operation.from_dict(TOOL)
    assert (operation.arity, operation.fields, operation.convention, operation.max_tokens) == (
        "one",
        (),
        Convention.TEXT,
        64,
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {**LLM, "promt": "x"},
            "operation: unknown key 'promt' (did you mean 'prompt'?); allowed: accepts, arity, convention, fields, "
            "judge, kind, max_tokens, name, produces, prompt, requires, schema, semantics, temperature, triggers",
        ),
        ({"name": "x", "kind": "tool"}, "operation: missing key 'accepts', 'produces'; required: name, kind, "),
        ({**TOOL, "kind": "tol"}, "unknown kind 'tol' (did you mean 'tool'?); allowed: control, llm, tool"),
        ({**LLM, "convention": "json"}, "unknown convention 'json'; allowed: code, fields, text"),
        ({**TOOL, "accepts": ["cod"]}, "operation 'run': accepts: unknown type 'cod' (did you mean 'code'?); allowed"),
        ({**TOOL, "requires": ["facs"]}, "operation 'run': requires: unknown type 'facs' (did you mean 'facts'?)"),
        ({**TOOL, "produces": "resul"}, "operation 'run': produces: unknown type 'resul' (did you mean 'result'?)"),
        ({**TOOL, "produces": "task"}, "produces must be any type but 'task', which only the task itself has, not"),
        ({**TOOL, "accepts": []}, "operation 'run': accepts must be at least one of answer, code, "),
        ({**TOOL, "accepts": "code"}, "accepts must be a list of names, for example [task], not 'code'"),
        ({**TOOL, "prompt": "x"}, "operation 'run': prompt must be no prompt for kind tool, not 'x'"),
        ({**LLM, "prompt": " "}, "operation 'think': prompt must be a prompt for kind llm, not ' '"),
        ({**TOOL, "arity": "two"}, "operation 'run': arity must be one or many, not 'two'"),
        ({**LLM, "temperature": 2.5}, "operation 'think': temperature must be 0 to 2, not 2.5"),
        ({**LLM, "temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ({**LLM, "max_tokens": 0}, "max_tokens must be a whole number of at least 1, not 0"),
        ({**LLM, "max_tokens": True}, "max_tokens must be a whole number of at least 1, not True"),
        ({**LLM, "judge": "yes"}, "judge must be true or false, not 'yes'"),
        ({**TOOL, "fields": ["is bad"]}, "fields must be names of letters, digits and underscores, not 'is bad'"),
        ({**TOOL, "name": "task"}, "name must be a name of letters, digits and underscores other than 'task', not"),
        ({**TOOL, "semantics": 3}, "semantics must be a text, not 3"),
        (["run"], "operation must be a mapping with the keys name, kind, accepts, produces"),
    ],
)
def test_each_mistake_ends_in_a_sentence(raw, message):
    with pytest.raises(OperationError) as caught:
        Operation.from_dict(raw)
    assert message in str(caught.value)
