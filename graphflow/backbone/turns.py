"""Turn formats: how a context is written in a model family's own special tokens.

Every segment of a context begins and ends beside a special token, so that no tokenizer merge crosses a boundary and a
segment's ids are the same whatever stands around it. The newline that Qwen and Gemma write after a turn belongs to the
segment of that turn: it stands between two special tokens, ``<|im_end|>`` and the next ``<|im_start|>``. The one place
without a special token is where an output begins, after the newline that opens the model's turn: an output's ids are
those that the model gave, and a text that is encoded in its place must not begin with white space.

The formats of the real families are those of their published chat templates (Qwen2.5, Llama 3.1, Gemma 2 instruct),
the system turn included that the first two write where a conversation brings none. Where an operation's prompt stands
before the task it is the system message. Gemma's template has no system role and refuses two user turns in a row; both
happen here, each turn written as the template writes one. The templates of Llama and Gemma strip white space around a
message, so texts should have none. The mini format is ours.

Only a turn format writes special tokens. A task, a tool result or another branch's output that holds the name of one
holds text: a segment remembers which part of it was given (`Written`), and `Backbone.encode` reads that part as text.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphflow.errors import UnknownNameError, unknown_name


class Written(str):
    """The text of a segment, which knows the part that no turn format wrote.

    Attributes:
        before: What the turn format wrote before it.
        given: That part; names of special tokens in it are text.
        after: What the turn format wrote after it.
    """

    before: str
    given: str
    after: str

    def __new__(cls, before: str, given: str, after: str) -> Written:
        """The three parts together."""
        whole = super().__new__(cls, before + given + after)
        whole.before, whole.given, whole.after = before, given, after
        return whole


@dataclass(frozen=True)
class TurnFormat:
    """The pieces of text around each kind of segment.

    Attributes:
        bos: What a context begins with where the task comes first.
        task: Before and after the task text.
        operation: Before and after an operation's prompt; the second part also opens the model's turn.
        instruction: Before and after an operation's prompt where a context begins with it (operation-first layout).
        opening: What opens the model's turn where no operation's prompt does.
        tool: Before and after a tool result.
        given: Before and after another branch's output at a join.
        stop: Special token that ends an output.
        closing: What follows an output in the context, the stop token included.
        ends: Other special tokens that end an output, where the tokenizer has them; no context holds them.
    """

    bos: str
    task: tuple[str, str]
    operation: tuple[str, str]
    instruction: tuple[str, str]
    opening: str
    tool: tuple[str, str]
    given: tuple[str, str]
    stop: str
    closing: str
    ends: tuple[str, ...] = ()

    def write_task(self, text: str) -> Written:
        """The first segment of every context."""
        return Written(self.bos + self.task[0], text, self.task[1])

    def write_question(self, text: str) -> Written:
        """The task's segment where an operation's prompt begins the context: the operation-first layout."""
        return Written(self.task[0], text, self.task[1])

    def write_operation(self, prompt: str) -> str:
        """An operation's segment: identical for every request, so its KV can be shared."""
        return f"{self.operation[0]}{prompt}{self.operation[1]}"

    def write_instruction(self, prompt: str) -> str:
        """An operation's segment at the beginning of a context: the operation-first layout."""
        return f"{self.instruction[0]}{prompt}{self.instruction[1]}"

    def write_tool(self, text: str) -> Written:
        """A tool result as dynamic text."""
        return Written(self.tool[0], text, self.tool[1])

    def write_given(self, label: str, text: str) -> Written:
        """A labelled output of another branch as dynamic text."""
        return Written(f"{self.given[0]}{label}: ", text, self.given[1])


MINI = TurnFormat(
    bos="<|bos|>",
    task=("<|task|>", "<|end|>"),
    operation=("<|op|>", "<|out|>"),
    instruction=("<|bos|><|op|>", "<|end|>"),
    opening="<|out|>",
    tool=("<|tool|>", "<|end|>"),
    given=("<|given|>", "<|end|>"),
    stop="<|end|>",
    closing="<|end|>",
)
QWEN = TurnFormat(
    bos="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
    task=("<|im_start|>user\n", "<|im_end|>\n"),
    operation=("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    instruction=("<|im_start|>system\n", "<|im_end|>\n"),
    opening="<|im_start|>assistant\n",
    tool=("<|im_start|>user\nResult:\n", "<|im_end|>\n"),
    given=("<|im_start|>user\n", "<|im_end|>\n"),
    stop="<|im_end|>",
    closing="<|im_end|>\n",
    ends=("<|endoftext|>",),
)
LLAMA_SYSTEM = (  # the date is the one that Llama 3.1's template writes unless it is given another
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
)
LLAMA = TurnFormat(
    bos=f"{LLAMA_SYSTEM}<|eot_id|>",
    task=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    operation=(
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    instruction=(LLAMA_SYSTEM, "<|eot_id|>"),
    opening="<|start_header_id|>assistant<|end_header_id|>\n\n",
    tool=("<|start_header_id|>user<|end_header_id|>\n\nResult:\n", "<|eot_id|>"),
    given=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
    stop="<|eot_id|>",
    closing="<|eot_id|>",
    ends=("<|end_of_text|>", "<|eom_id|>"),
)
GEMMA = TurnFormat(
    bos="<bos>",
    task=("<start_of_turn>user\n", "<end_of_turn>\n"),
    operation=("<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n"),
    instruction=("<bos><start_of_turn>user\n", "<end_of_turn>\n"),
    opening="<start_of_turn>model\n",
    tool=("<start_of_turn>user\nResult:\n", "<end_of_turn>\n"),
    given=("<start_of_turn>user\n", "<end_of_turn>\n"),
    stop="<end_of_turn>",
    closing="<end_of_turn>\n",
    ends=("<eos>",),
)
FORMATS = {"mini": MINI, "qwen": QWEN, "llama": LLAMA, "gemma": GEMMA}


def turn_format(name: str) -> TurnFormat:
    """The format of that name.

    Raises:
        UnknownNameError: If there is none; the message lists them.
    """
    if name not in FORMATS:
        raise UnknownNameError(unknown_name("turn format", name, FORMATS))
    return FORMATS[name]
