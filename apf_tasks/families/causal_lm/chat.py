"""Conversations: which can be used, how they stand as tokens, and how a model answers one.

A text of tokens is made segment by segment, at the borders between what is asked and what is answered: a prompt has the
same tokens alone, when the model is to answer it, as it had before its answer in training.

B prompts, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from apf_tasks.errors import ModelError
from apf_tasks.examples import IGNORE_INDEX
from apf_tasks.families.causal_lm.conversations import Conversation
from apf_tasks.families.causal_lm.turns import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from apf_tasks.models.pretrained import BaseModelInfo


class Segment(NamedTuple):
    """A part of a rendered conversation."""

    text: str
    answer: bool = False
    """Whether the assistant says it."""
    learned: bool = False
    """Whether the model learns to write it."""


DEFAULT_TEMPLATE = (
    "{%- if bos_token is defined and bos_token and bos_token != eos_token -%}{{ bos_token }}{%- endif -%}"
    "{%- if tools -%}{{ '<|tools|>\n' }}"
    "{%- for tool in tools -%}{{ tool | tojson + '\n' }}{%- endfor -%}{{ eos_token + '\n' }}{%- endif -%}"
    "{%- for message in messages -%}{{ '<|' + message['role'] + '|>\n' }}"
    "{%- if message['reasoning_content'] -%}"
    "{{ '<think>\n' + message['reasoning_content'] + '\n</think>\n\n' }}{%- endif -%}"
    "{{ message['content'] }}"
    "{%- for call in message['tool_calls'] or [] -%}"
    "{{ ('\n' if message['content'] or not loop.first else '') + '<tool_call>\n' }}"
    "{{ call['function'] | tojson + '\n</tool_call>' }}"
    "{%- endfor -%}{{ eos_token + '\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>\n' }}{%- endif -%}"
)
"""For a tokenizer without a chat template: the tools; then of each message the role in marks on a line, the
reasoning, the content, the calls of tools, the end-of-text token."""


@dataclass(frozen=True)
class Chat:
    """How a tokenizer writes conversations."""

    tokenizer: PreTrainedTokenizerBase
    mark: str
    """Text after every answer."""
    stops: tuple[int, ...]
    """Tokens that end an answer."""
    appended: tuple[int, ...]
    """The end of text behind every answer, where `mark` is no token of its own that a model could stop at."""
    reasons: bool
    """Whether the template writes `reasoning_content`; else it is written into the answer, as `<think>`."""

    @classmethod
    def of(cls, base: BaseModelInfo) -> Chat:
        """Gives a tokenizer without a chat template the default one: it is saved with it. Raises ModelError."""
        tokenizer = base.tokenizer
        end = tokenizer.eos_token_id
        if end is None:
            do = "Choose a model.base whose tokenizer has an eos_token."
            raise ModelError("instructions", "a token that ends a text", "a tokenizer without one", do)
        if tokenizer.chat_template is None:
            tokenizer.chat_template = DEFAULT_TEMPLATE
        turns: list[Message] = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"}]
        asked, whole = render(tokenizer, turns[:1], open_end=True), render(tokenizer, turns)
        reasoned = render(tokenizer, [turns[0], {**turns[1], "reasoning_content": "Reason"}])
        if not whole.startswith(asked) or "Answer" not in whole[len(asked) :]:
            do = "Give the tokenizer another chat_template."
            raise ModelError("chat template", "an answer that begins where its prompt ends", repr(whole), do)
        mark = whole[len(asked) :].partition("Answer")[2].strip()
        ids = tokenizer(mark, add_special_tokens=False)["input_ids"]
        alone = len(ids) == 1
        stops, appended = tuple({end, *ids} if alone else {end}), () if alone else (end,)
        return cls(tokenizer, mark, stops, appended, "Reason" in reasoned)

    def examples(self, talk: Conversation, open_end: bool = False) -> list[list[Segment]]:
        """The conversation as few texts as possible, in each of which an answer follows what the model sees before it.

        One text, unless the template writes an earlier answer in another way than the last, without its reasoning for
        example. With `open_end`, only the last text, up to where the model is to answer. Texts without an answer to
        learn are left out.
        """
        found: list[list[Segment]] = []
        before = ""
        answers = [at for at, message in enumerate(talk.messages) if message["role"] == "assistant"]
        for at in [*answers, *([len(talk.messages)] if open_end else [])]:
            asked = self.write(Conversation(talk.messages[:at], talk.tools), open_end=True)
            if not found or not asked.startswith(before):
                found.append([])
                before = ""
            found[-1].append(Segment(asked[len(before) :]))
            if at == len(talk.messages):
                return found[-1:]
            before = self.write(Conversation(talk.messages[: at + 1], talk.tools))
            answer = before[len(asked) :]
            _check_written(talk, talk.messages[at], asked, answer)
            learned = "weight" not in talk.messages[at]
            found[-1] += [Segment(answer.rstrip(), True, learned), Segment(answer[len(answer.rstrip()) :])]
        return [segments for segments in found if any(segment.learned for segment in segments)]

    def write(self, talk: Conversation, open_end: bool = False) -> str:
        """A conversation as the chat template writes it."""
        messages = [{k: v for k, v in message.items() if k != "weight"} for message in talk.messages]
        for message in messages if not self.reasons else ():
            if thought := message.pop("reasoning_content", None):
                message["content"] = f"<think>\n{thought}\n</think>\n\n{message['content']}"
        return render(self.tokenizer, messages, open_end, talk.tools)

    def tokens(self, examples: Sequence[Sequence[Segment]]) -> list[tuple[list[int], list[int]]]:
        """(ids, labels) of each example; all are tokenized in one go."""
        texts = [segment.text for segments in examples for segment in segments]
        encoded = iter(self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else [])
        found = []
        for segments in examples:
            ids: list[int] = []
            labels: list[int] = []
            for segment in segments:
                part = [*next(encoded), *(self.appended if segment.answer else ())]
                ids += part
                labels += part if segment.learned else [IGNORE_INDEX] * len(part)
            found.append((ids, labels))
        return found

    def text_of(self, ids: list[int]) -> str:
        """What the model has written, without the marks of its end."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip().removesuffix(self.mark).strip()


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    open_end: bool = False,
    tools: Sequence[Any] = (),
) -> str:
    """A conversation as the chat template writes it; `open_end` adds what an answer begins with. Raises ModelError."""
    from jinja2 import TemplateError

    offered: Any = list(tools) or None
    try:
        return str(
            tokenizer.apply_chat_template(messages, tools=offered, tokenize=False, add_generation_prompt=open_end)
        )
    except TemplateError as error:
        found, do = str(error), "Convert the rows to the form it accepts, or choose another model.base."
        raise ModelError("chat template of the model", "to write a conversation", found, do) from error


def _check_written(talk: Conversation, message: Message, asked: str, answer: str) -> None:
    """Whether the template has written the tools and the calls. Raises ModelError for one that leaves them out."""
    tools = [str(tool["function"].get("name", "")) for tool in talk.tools if isinstance(tool.get("function"), dict)]
    calls = [call["function"]["name"] for call in message.get("tool_calls", [])]
    for what, names, text in (("tools", tools, asked), ("tool_calls", calls, answer)):
        if lost := [name for name in names if name not in text]:
            do = "Choose a model.base whose template writes tools, or remove the template: the default one does."
            raise ModelError("chat template of the model", f"to write {what}", f"it leaves out {lost[0]!r}", do)


@dataclass(frozen=True)
class Example:
    """Part of a row, as tokens."""

    row: int
    ids: list[int]
    labels: list[int]
    truncated: bool


def training_examples(chat: Chat, conversations: Sequence[Conversation], most: int) -> Iterator[Example]:
    """Every conversation as examples of at most `most` tokens.

    What is too long loses whole turns: the earliest questions with what follows them, all but the system message and
    the last question; then the last answers to that, all but the first one that is learned. Then the beginning of what
    stands before the answer is cut, down to half of `most`; then the end of the answer.
    """
    written = [chat.examples(talk) for talk in conversations]
    encoded = iter(chat.tokens([segments for examples in written for segments in examples]))
    for row, (talk, examples) in enumerate(zip(conversations, written, strict=True)):
        found = [next(encoded) for _ in examples]
        truncated = False
        while any(len(ids) > most for ids, _ in found):
            truncated = True
            shorter = without_first_turns(talk.messages)
            shorter = without_last_answer(talk.messages) if shorter == talk.messages else shorter
            if shorter == talk.messages:
                found = [_cut(ids, labels, most) for ids, labels in found]
                break
            talk = talk._replace(messages=shorter)
            found = chat.tokens(chat.examples(talk))
        for ids, labels in found:
            yield Example(row, ids, labels, truncated)


def _cut(ids: list[int], labels: list[int], most: int) -> tuple[list[int], list[int]]:
    """Of one question and its answer what `most` tokens hold."""
    asked = next(at for at, label in enumerate(labels) if label != IGNORE_INDEX)
    answered = sum(label != IGNORE_INDEX for label in labels)
    kept = min(asked, max(most - answered, most // 2))
    return ids[asked - kept :][:most], labels[asked - kept :][:most]


def without_first_turns(messages: list[Message]) -> list[Message]:
    """Without the first question and all up to the next; unchanged when there is no other question."""
    first = int(messages[0]["role"] == "system")
    nexts = [at for at, message in enumerate(messages) if message["role"] == "user" and at > first]
    return messages[:first] + messages[nexts[0] :] if nexts else messages


def without_last_answer(messages: list[Message]) -> list[Message]:
    """Up to the answer before the last, of those that are learned; unchanged when there is only one."""
    learned = [at for at, message in enumerate(messages) if message["role"] == "assistant" and "weight" not in message]
    return messages[: learned[-2] + 1] if len(learned) > 1 else messages


def prompt_examples(chat: Chat, conversations: Sequence[Conversation], most: int) -> list[tuple[list[int], bool]]:
    """Tokens of every prompt up to its answer, and whether it was cut at `most`, as `training_examples` does."""
    found = chat.tokens([example for talk in conversations for example in chat.examples(talk, open_end=True)])
    cut: list[tuple[list[int], bool]] = []
    for talk, (ids, _) in zip(conversations, found, strict=True):
        truncated = len(ids) > most
        while len(ids) > most and (shorter := without_first_turns(talk.messages)) != talk.messages:
            talk = talk._replace(messages=shorter)
            ids, _ = chat.tokens(chat.examples(talk, open_end=True))[0]
        cut.append((ids[-most:], truncated))
    return cut


def stop_at(model: PreTrainedModel, stops: Sequence[int]) -> None:
    """Note on the model what it was taught to stop at: it is saved with it, for whoever loads it."""
    if model.generation_config is not None:
        model.generation_config.eos_token_id = list(stops)


def generate_responses(
    model: PreTrainedModel, chat: Chat, prompts: Sequence[list[int]], pad_id: int, most: int
) -> list[str]:
    """The most probable continuation of every prompt, token by token, of at most `most` tokens."""
    import torch
    from transformers import GenerationConfig

    longest = max(len(ids) for ids in prompts)
    ids = torch.tensor([[pad_id] * (longest - len(p)) + p for p in prompts], device=model.device)  # (B, T)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    settings = GenerationConfig(max_new_tokens=most, do_sample=False, eos_token_id=[*chat.stops], pad_token_id=pad_id)  # type: ignore[no-untyped-call]
    written = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)  # type: ignore[operator]
    return [chat.text_of(row) for row in written[:, longest:].tolist()]
