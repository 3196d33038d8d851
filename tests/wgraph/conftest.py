"""A small library of operations that the tests of this floor share; conf/operations has its own test."""

import pytest

from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation

CANDIDATES = ("answer", "result", "code")


def llm(name, accepts, produces, **more):
    return Operation(name, Kind.LLM, accepts, produces, prompt=f"Do {name}.", **more)


@pytest.fixture(scope="session")
def library():
    return Library(
        [
            llm("think", ("task", "plan", "result"), "answer"),
            llm("plan", ("task",), "plan"),
            llm("code", ("task", "plan"), "code"),
            llm("review", ("answer", "result"), "review", fields=("issues",)),
            llm("revise", ("review",), "answer", requires=("answer",)),
            llm("fix", ("result", "review"), "code", requires=("code",)),
            llm("judge", CANDIDATES, "answer", arity="many"),
            Operation("tests", Kind.TOOL, ("code", "answer"), "result", fields=("failed",)),
            Operation("vote", Kind.CONTROL, CANDIDATES, "answer", arity="many"),
            Operation("first", Kind.CONTROL, CANDIDATES, "answer", arity="many"),
        ]
    )
