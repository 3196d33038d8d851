from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphflow.errors import UnknownNameError
from graphflow.wgraph.wgraph import Edge, Node, WGraph, merge
from graphflow.wgraph.workflow import TASK, Guard, Workflow, WorkflowError, validate
from tests.wgraph.build import workflow
from tests.wgraph.strategies import LIBRARY, workflows

DIRECT = workflow({"a": "think(task)"}, name="direct")
VOTE = workflow({"a": "think(task) x3", "v": "vote(a)"}, name="vote")
REPAIR = workflow(
    {"c": "code(task)", "t": "tests(c)", "f": "fix(t) if t.failed", "p": "first(f, c)"}, name="repair", kinds=("mbpp",)
)
TWICE = workflow(
    {"c": "code(task)", "t": "tests(c)", "f": "fix(t) if t.failed", "p": "first(f, c)"},
    name="twice",
    kinds=("mbpp",),
    loops=[{"body": ["t", "f"], "while": "t.failed", "max_unroll": 2}],
)


def read_back(graph, name):
    embedding = graph.embed(name)
    return graph.workflow(embedding.edges, embedding.answer, name)


def test_node_ids():
    assert Node("think").id == "think"
    assert Node("tests", occurrence=2).id == "tests#2"
    assert Node("think", samples=3).id == "think x3"
    assert Node("think", occurrence=2, samples=3).id == "think#2 x3"


def test_a_merge_worked_out_by_hand(library):
    graph = merge([DIRECT, VOTE, REPAIR, TWICE], library)
    # DIRECT brings think; VOTE brings think x3 (other samples, other node) and vote; REPAIR brings code, tests, fix and
    # first; TWICE runs through all of these and needs a second tests and a second fix.
    ids = ["task", "think", "think x3", "vote", "code", "tests", "fix", "first", "tests#2", "fix#2"]
    assert [node.id for node in graph.nodes] == ids
    both = ("repair", "twice")
    assert graph.edges == (
        Edge("task", "think", "", ("direct",)),
        Edge("task", "think x3", "", ("vote",)),
        Edge("think x3", "vote", "", ("vote",)),
        Edge("task", "code", "", both),
        Edge("code", "tests", "", both),
        Edge("tests", "fix", "tests.failed", both),
        Edge("fix", "first", "", both),
        Edge("code", "first", "", both),
        Edge("fix", "tests#2", "tests.failed", ("twice",)),
        Edge("tests#2", "fix#2", "tests#2.failed", ("twice",)),
        Edge("fix#2", "first", "", ("twice",)),
    )
    assert [edge.count for edge in graph.edges] == [1, 1, 1, 2, 2, 2, 2, 2, 1, 1, 1]
    assert graph.embed("repair") == (("code", "tests", "fix", "first"), (3, 4, 5, 6, 7), "first")
    # The steps of TWICE stand as c, t, f, t_2, f_2, p.
    assert graph.embed(TWICE).nodes == ("code", "tests", "fix", "tests#2", "fix#2", "first")
    assert graph.embed(TWICE).edges == (3, 4, 5, 8, 9, 10, 6, 7)
    assert graph.input_order("first") == ("fix#2", "fix", "code")
    assert graph.answers == ("think", "vote", "first")
    assert [graph.kind(id) for id in ("task", "think", "tests", "vote")] == ["task", "llm", "tool", "control"]


def test_every_workflow_is_read_back_from_its_edges(library):
    graph = merge({flow.name: flow for flow in (DIRECT, VOTE, REPAIR, TWICE)}, library)
    for flow in (DIRECT, VOTE, REPAIR, TWICE):
        assert read_back(graph, flow.name).fingerprint == flow.fingerprint
    again = read_back(graph, "twice")
    assert again.step("fix#2").when == Guard("tests#2", "failed")
    assert again.parents("first") == ("fix#2", "fix", "code")


def test_a_further_occurrence_is_created_where_a_cycle_would_arise(library):
    judged = workflow({"a": "think(task)", "b": "code(task)", "j": "judge(a, b)", "v": "vote(j)"}, name="judged")
    voted = workflow({"a": "think(task)", "b": "code(task)", "v": "vote(a, b)", "j": "judge(v)"}, name="voted")
    graph = merge([judged, voted], library)
    # judge -> vote is there, so vote -> judge would close a cycle: the second workflow gets judge#2.
    assert graph.embed("voted").nodes == ("think", "code", "vote", "judge#2")
    assert nx.is_directed_acyclic_graph(graph.to_networkx())


def test_a_further_occurrence_is_created_where_orders_of_inputs_contradict(library):
    steps = {"a": "think(task)", "b": "code(task)", "p": "first(a, b)"}
    graph = merge([workflow(steps, name="ab"), workflow({**steps, "p": "first(b, a)"}, name="ba")], library)
    assert graph.embed("ba").nodes == ("think", "code", "first#2")
    assert read_back(graph, "ab").parents("first") == ("think", "code")
    assert read_back(graph, "ba").parents("first#2") == ("code", "think")


def test_where_no_workflow_orders_inputs_the_latest_goes_first(library):
    graph = merge([REPAIR, workflow({"a": "think(task)", "p": "first(a)"}, name="single")], library)
    # think stands after code, tests and fix in the order of nodes and has no place among them otherwise.
    assert graph.topological() == ("task", "code", "tests", "fix", "think", "first")
    assert graph.input_order("first") == ("think", "fix", "code")


def test_guards_make_edges_of_their_own(library):
    flow = {"a": "think(task)", "c": "review(a)", "b": "revise(c)", "p": "first(b, a)"}
    always = workflow(flow, name="always")
    guarded = workflow({**flow, "b": "revise(c) if c.issues"}, name="guarded")
    graph = merge([always, guarded], library)
    assert [(edge.guard, edge.workflows) for edge in graph.edges if edge.target == "revise"] == [
        ("", ("always",)),
        ("review.issues", ("guarded",)),
    ]
    assert read_back(graph, "always").fingerprint == always.fingerprint
    assert read_back(graph, "guarded").fingerprint == guarded.fingerprint
    both = set(graph.embed("always").edges) | set(graph.embed("guarded").edges)
    with pytest.raises(
        WorkflowError, match="step 'revise': the edges into it must have one guard, not 'always' and 'rev"
    ):
        graph.workflow(both, "first", "both")


def test_growth_keeps_ids_and_indices_and_the_old_graph(library):
    small = merge([DIRECT, REPAIR], library)
    grown = small.add(TWICE)
    assert grown.nodes[: len(small.nodes)] == small.nodes
    assert [(e.source, e.target, e.guard) for e in grown.edges][: len(small.edges)] == [
        (e.source, e.target, e.guard) for e in small.edges
    ]
    assert grown.embed("repair") == small.embed("repair")
    assert "twice" not in small.embeddings
    assert small.edges[1].workflows == ("repair",)
    assert grown.edges[1].workflows == ("repair", "twice")
    assert grown.add(TWICE) is grown


@settings(max_examples=30, deadline=None)
@given(drawn=st.lists(workflows(), min_size=2, max_size=6))
def test_merging_at_once_is_adding_one_by_one(drawn):
    """What a merge carries along from one workflow to the next is what a graph tells of itself."""
    named = [replace(made, name=f"w{place}") for place, made in enumerate(drawn)]
    graph = WGraph(LIBRARY)
    for made in named:
        graph = graph.add(made)
    at_once = merge(named, LIBRARY)
    assert (at_once.nodes, at_once.edges, at_once.embeddings) == (graph.nodes, graph.edges, graph.embeddings)
    assert [at_once.input_order(node.id) for node in graph.nodes] == [graph.input_order(n.id) for n in graph.nodes]


def test_a_new_workflow_out_of_two(library):
    graph = merge([VOTE, REPAIR], library)
    index = {(edge.source, edge.target): i for i, edge in enumerate(graph.edges)}
    edges = [index["task", "code"], index["code", "tests"]]
    made = graph.workflow(edges, "tests", "made", kinds=("mbpp",))
    assert made == workflow({"code": "code(task)", "tests": "tests(code)"}, name="made", kinds=("mbpp",))
    assert validate(made, library) is None


@pytest.mark.parametrize(
    ("edges", "answer", "message"),
    [
        ([0, 99], "think", "workflow 'x': edges must be 0 to 5, not 99"),
        ([0], "vote", "answer: unknown step 'vote'; allowed: think"),
        ([3], "fix", "in: unknown step 'tests'; allowed: fix, task"),
    ],
)
def test_edges_that_make_no_workflow_are_refused(library, edges, answer, message):
    graph = merge([DIRECT, REPAIR], library)
    with pytest.raises(WorkflowError) as caught:
        graph.workflow(edges, answer, "x")
    assert message in str(caught.value)


def test_unknown_names_are_refused(library):
    graph = merge([DIRECT], library)
    with pytest.raises(UnknownNameError, match="unknown merged workflow 'dirct' .did you mean 'direct'"):
        graph.embed("dirct")
    with pytest.raises(UnknownNameError, match="unknown node 'thinks' .did you mean 'think'"):
        graph.node("thinks")
    with pytest.raises(WorkflowError, match="the merged workflow of this name has"):
        graph.add(workflow({"a": "code(task)"}, name="direct"))
    with pytest.raises(WorkflowError, match="never reaches the answer"):
        graph.add(workflow({"a": "code(task)", "b": "think(task)"}, name="dead"))


def test_networkx_sees_the_same_graph(library):
    graph = merge([DIRECT, TWICE], library).to_networkx()
    assert graph.nodes["tests#2"] == {"op": "tests", "occurrence": 2, "samples": 1, "kind": "tool"}
    assert graph.nodes["task"]["kind"] == "task"
    assert graph.edges["tests", "fix", "tests.failed"] == {
        "index": 3,
        "guard": "tests.failed",
        "count": 1,
        "workflows": ("twice",),
    }


def test_the_summary_counts(library):
    lines = merge([DIRECT, VOTE, REPAIR, TWICE], library).describe(top=2).splitlines()
    assert lines == [
        # task -> code -> tests -> fix -> tests#2 -> fix#2 -> first
        "wGraph of 4 workflows: 10 nodes (the task is one), 11 edges, 6 operations, longest path 6",
        "operations",
        "  control    2  first, vote",
        "  llm        3  code, fix, think",
        "  tool       1  tests",
        "workflows",
        "  gsm8k      2  direct, vote",
        "  mbpp       2  repair, twice",
        "most used edges",
        "    2 x  task -> code",
        "    2 x  code -> tests",
    ]
    assert merge([], library).describe().startswith("wGraph of 0 workflows: 1 nodes")


@settings(max_examples=80, deadline=None)
@given(st.lists(workflows(), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_merging_keeps_every_workflow_and_stays_acyclic(flows, random):
    flows = [Workflow(f"w{i}", flow.kinds, flow.steps, flow.answer) for i, flow in enumerate(flows)]
    graph = merge(flows, LIBRARY)
    assert nx.is_directed_acyclic_graph(graph.to_networkx())
    assert graph.nodes[0].id == TASK
    assert len({node.id for node in graph.nodes}) == len(graph.nodes)
    for flow in flows:
        embedding = graph.embed(flow)
        assert len(set(embedding.nodes)) == len(flow.steps)
        edges = list(embedding.edges)
        random.shuffle(edges)
        again = graph.workflow(edges, embedding.answer, flow.name, flow.kinds)
        assert again.fingerprint == flow.fingerprint
        assert validate(again, LIBRARY) is None


@settings(max_examples=80, deadline=None)
@given(workflows(), st.randoms(use_true_random=False))
def test_the_fingerprint_survives_other_names_and_another_order(flow, random):
    ids = [step.id for step in flow.steps]
    names = dict(zip(ids, random.sample([f"n{i}" for i in range(50)], len(ids)), strict=True)) | {TASK: TASK}
    raw = flow.to_dict()["steps"]
    for step in raw.values():
        step["in"] = [names[id] for id in step["in"]]
        if "when" in step:
            guard = Guard.parse(step["when"])
            step["when"] = str(Guard(names[guard.step], guard.field, guard.negated))
    random.shuffle(ids)
    steps = {names[id]: raw[id] for id in ids}
    other = Workflow.from_dict({"name": "other", "kinds": ["math"], "steps": steps, "answer": names[flow.answer]})
    assert other.fingerprint == flow.fingerprint
