"""Conversations as rows: a prompt and a response, or a list of messages. Which of them can be used.

A prompt of several turns is written as JSON, and so is an answer with more than a text, so that every row, and every
served one, is plain text.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from apf_tasks.families.causal_lm.turns import Message, are_calls, as_messages, parsed, tools_in
from apf_tasks.family import CheckedRows

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("system", "user", "assistant", "tool")


class Conversation(NamedTuple):
    """What a model reads, or learns."""

    messages: list[Message]
    tools: list[Any]
    """The tools it may call."""


def check_conversations(systems: bool, rows: pd.DataFrame) -> CheckedRows:
    """A usable row is a conversation with an answer to learn; it becomes `response`, the last one, and `prompt`.

    `systems`: whether rows may bring a system message.
    """
    import pandas as pd

    scored, notes = [], Counter[str]()
    for row in rows.to_dict("records"):
        seen = Counter[str]()
        scored.append(_judge(row, systems, seen))
        if not scored[-1][1]:
            notes += seen
    columns = ["prompt", "response", *(["system"] if systems else [])]
    found = {c: pd.Series([r.get(c) for r, _ in scored], index=rows.index, dtype=object) for c in columns}
    reasons = pd.Series([reason for _, reason in scored], index=rows.index, dtype=object)
    read = [name for name in ("input", "history", "tools", *(() if systems else ("system",))) if name in rows]
    return CheckedRows(rows.drop(columns=read).assign(**found), reasons, dict(notes))


def _judge(row: dict[Any, Any], systems: bool, notes: Counter[str]) -> tuple[dict[str, Any], str]:
    """(the columns that a row becomes, "" or why it cannot be used)."""
    paired = "prompt" in row and row.get("messages") is None
    messages, within, problem = _paired(row, notes) if paired else (as_messages(row.get("messages"), notes), [], "")
    tools = tools_in(row.get("tools"))
    if problem or messages is None:
        return {}, problem or "no messages"
    if problem := problem_with(messages):
        return {}, problem
    if tools is None:
        return {}, "tools are not a list of {name, description, parameters}"
    first = messages[0] if messages[0]["role"] == "system" else {"content": ""}
    turns = messages[1:] if "role" in first else messages
    lifted = tools_in(first.get("tools"))
    system = "\n\n".join(dict.fromkeys(text for text in (row.get("system"), first["content"]) if text))
    if system and not systems:
        return {}, "a system message: write family.systems: true"
    learned = [at for at, message in enumerate(turns) if message["role"] == "assistant" and "weight" not in message]
    if not learned:
        return {}, "no answer with a weight above 0"
    notes.update(_left_out(turns[learned[-1] + 1 :]))
    asked, answer = turns[: learned[-1]], turns[learned[-1]]
    tools = [*tools, *(lifted or []), *within]
    return {"prompt": prompt_of(asked, tools), "response": response_of(answer), "system": system}, ""


def _left_out(turns: list[Message]) -> list[str]:
    """What is counted of the turns after the last answer to learn."""
    unlearned = sum(turn["role"] == "assistant" for turn in turns)
    unanswered = bool(turns) and turns[-1]["role"] != "assistant"
    names = ("last answers of weight 0 left out", "last user turns without an answer left out")
    return [names[0]] * unlearned + [names[1]] * unanswered


def _paired(row: dict[Any, Any], notes: Counter[str]) -> tuple[list[Message], list[Any], str]:
    """(messages of prompt and response, with `input` and `history` as Alpaca has them; tools; why there are none)."""
    found = {name: _joined(row.get(name)) for name in ("prompt", "input", "response", "system")}
    if found["prompt"] is None and isinstance(found["input"], str):
        found |= {"prompt": found["input"], "input": None}
    for name, value in found.items():
        if value is None and name in ("prompt", "response"):
            return [], [], f"no {name}"
        if value is not None and not isinstance(value, str):
            return [], [], f"the {name} is not text"
    prompt, extra = found["prompt"], found["input"]
    if extra is not None and not prompt.endswith(extra):
        prompt = f"{prompt}\n{extra}"
        notes["inputs appended to their prompts"] += 1
    history = [] if row.get("history") is None else as_messages(row["history"], notes)
    if problem := history and problem_with(history):
        return [], [], f"history: {problem}"
    turns, tools = asked_of(prompt)
    return [*history, *turns, answer_of(found["response"])], tools, ""


def _joined(value: Any) -> Any:
    """A list of sentences as one text; anything else as it is."""
    from apf_tasks.families._text_words import joined

    listed = isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)
    return joined(value, "auto")[0] if listed else value


def problem_with(messages: Any, open_end: bool = False) -> str:
    """Why this is no conversation to learn from, or ("" or why) to answer when its end is open."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return "messages are not a list of {role, content}"
    before = ""
    for at, message in enumerate(messages):
        if problem := _problem_within(message) or _problem_after(before, message["role"], at):
            return problem
        before = message["role"]
    if open_end:
        return "" if before in ("user", "tool") else "the conversation does not end with a user turn"
    return "" if any(message["role"] == "assistant" for message in messages) else "no assistant turn"


def _problem_within(message: Message) -> str:
    """What is wrong with a message, whatever stands before it."""
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        return f"unknown role {role!r}"
    if "tool_calls" in message and not are_calls(message["tool_calls"]):
        return "a tool call that is not {name, arguments}"
    may_be_empty = role == "tool" or message.get("tool_calls") or (role == "system" and message.get("tools"))
    if not isinstance(content, str) or not (content.strip() or may_be_empty):
        return f"{role} turn without text"
    return f"{role} turn with a part of type {message['parts'][0]!r}" if message.get("parts") else ""


def _problem_after(before: str, role: str, at: int) -> str:
    """Why a turn of `role` cannot follow one of `before`."""
    if role == "system" and at > 0:
        return "a system message after the first turn"
    if role == before and role != "tool":
        return f"two {role} turns in a row"
    if role == "assistant" and before in ("", "system"):
        return "the conversation begins with the assistant"
    return "a tool turn that follows no assistant turn" if role == "tool" and before not in ("assistant", role) else ""


def asked_of(prompt: str) -> Conversation:
    """What a prompt stands for: a text, or JSON: messages that end with the user or a tool, or {messages, tools}."""
    found = parsed(prompt)
    whole = found if isinstance(found, dict) and isinstance(found.get("messages"), list) else {"messages": found}
    messages = as_messages(whole["messages"]) if isinstance(whole["messages"], list) else None
    tools = tools_in(whole.get("tools"))
    if messages and tools is not None and not problem_with(messages, open_end=True):
        return Conversation(messages, tools)
    return Conversation([{"role": "user", "content": prompt}], [])


def turns_of(prompt: str) -> list[Message]:
    """The turns that a prompt stands for."""
    return asked_of(prompt).messages


def prompt_of(turns: list[Message], tools: list[Any] | None = None) -> str:
    """The text that `asked_of` makes these turns and tools of."""
    alone = turns[0]["content"] if len(turns) == 1 and not tools else ""
    if asked_of(alone) == (turns, []):
        return str(alone)
    return json.dumps({"messages": turns, "tools": tools} if tools else turns, ensure_ascii=False)


def answer_of(response: str) -> Message:
    """The message that a response stands for: a JSON object whose role is `assistant`, or a text."""
    found = parsed(response)
    if isinstance(found, dict) and found.get("role") == "assistant":
        messages = as_messages([found])
        if not _problem_within(messages[0]):
            return dict(messages[0])
    return {"role": "assistant", "content": response}


def response_of(answer: Message) -> str:
    """The text that `answer_of` makes this answer of."""
    text = str(answer["content"])
    return text if answer_of(text) == answer else json.dumps(answer, ensure_ascii=False)


def conversation(prompt: str, system: str | None = None) -> Conversation:
    """The messages up to the answer, and the tools."""
    turns, tools = asked_of(prompt)
    first = [{"role": "system", "content": system}] if system and turns[0]["role"] != "system" else []
    return Conversation([*first, *turns], tools)


def said(message: Message) -> str:
    """All that a message says: the reasoning, the text, the calls of tools."""
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls", [])]
    return "\n".join(text for text in (message.get("reasoning_content"), message["content"], *calls) if text)


def shown(prompt: str) -> str:
    """A prompt as a person reads it."""
    turns, tools = asked_of(prompt)
    lines = [f"{turn['role']}: {said(turn)}" for turn in turns]
    offered = [f"tools: {json.dumps(tools, ensure_ascii=False)}"] if tools else []
    return prompt if len(turns) == 1 and not tools else "\n".join([*offered, *lines])


def answers_of(rows: pd.DataFrame) -> list[str]:
    """All answers of each row that are learned."""
    return [
        "\n".join(said(m) for m in [*turns_of(p), answer_of(r)] if m["role"] == "assistant" and "weight" not in m)
        for p, r in zip(rows["prompt"], rows["response"], strict=True)
    ]
