"""Short ways to write workflows in tests."""

from graphflow.wgraph.workflow import Workflow


def workflow(steps, answer=None, name="w", kinds=("gsm8k",), loops=()):
    """``{"id": "op(in, ...) xN if guard"}`` becomes a workflow; the last step answers unless said otherwise."""
    raw = {id: parse(text) for id, text in steps.items()}
    return Workflow.from_dict(
        {"name": name, "kinds": list(kinds), "steps": raw, "answer": answer or list(steps)[-1], "loops": list(loops)}
    )


def parse(text):
    text, _, guard = text.partition(" if ")
    call, _, samples = text.partition(") x")
    op, _, inputs = call.rstrip(")").partition("(")
    step = {"op": op, "in": [name.strip() for name in inputs.split(",") if name.strip()]}
    if samples:
        step["samples"] = int(samples)
    if guard:
        step["when"] = guard
    return step
