"""Conversations as rows: a prompt and a response, or a list of messages. Which of them can be used.

A prompt of several turns is written as JSON, so that every row, and every served one, is plain text.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from apf_tasks.family import CheckedRows

if TYPE_CHECKING:
    import pandas as pd

Message = dict[str, str]
"""`role` and `content`."""
ROLES = ("system", "user", "assistant")
SPEAKERS = {"human": "user", "gpt": "assistant"}
"""What ShareGPT calls the roles."""


def check_conversations(systems: bool, rows: pd.DataFrame) -> CheckedRows:
    """A usable row is a conversation with an answer; `messages` become `response`, the last one, and `prompt`.

    `systems`: whether rows may bring a system message.
    """
    import pandas as pd

    paired = "prompt" in rows
    scored = [
        _judge_pair(row) if paired and row.get("messages") is None else _judge_messages(row, systems)
        for row in rows.to_dict("records")
    ]
    columns = ["prompt", "response", *(["system"] if systems else [])]
    found = {c: pd.Series([r.get(c) for r, _ in scored], index=rows.index, dtype=object) for c in columns}
    reasons = pd.Series([reason for _, reason in scored], index=rows.index, dtype=object)
    unanswered = sum(bool(row.get("unanswered")) for row, _ in scored)
    return CheckedRows(rows.assign(**found), reasons, {"last user turns without an answer left out": unanswered})


def _judge_pair(row: dict[Any, Any]) -> tuple[dict[str, Any], str]:
    found = {name: _joined(row.get(name)) for name in ("prompt", "response", "system")}
    for name, value in found.items():
        if value is None and name != "system":
            return found, f"no {name}"
        if value is not None and not isinstance(value, str):
            return found, f"the {name} is not text"
    return {**found, "system": found["system"] or ""}, ""


def _joined(value: Any) -> Any:
    """A list of sentences as one text; anything else as it is."""
    from apf_tasks.families._text_words import joined

    listed = isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)
    return joined(value, "auto")[0] if listed else value


def _judge_messages(row: dict[Any, Any], systems: bool) -> tuple[dict[str, Any], str]:
    messages = as_messages(row["messages"])
    if messages is None:
        return {}, "no messages"
    if problem := problem_with(messages):
        return {}, problem
    turns: list[Message] = [{"role": m["role"], "content": m["content"]} for m in messages]
    system = turns.pop(0)["content"] if turns[0]["role"] == "system" else ""
    if system and not systems:
        return {}, "a system message: write family.systems: true"
    unanswered = turns[-1]["role"] == "user"
    turns = turns[:-1] if unanswered else turns
    found = {"prompt": prompt_of(turns[:-1]), "response": turns[-1]["content"], "system": system}
    return {**found, "unanswered": unanswered}, ""


def as_messages(turns: Any) -> Any:
    """Turns as ShareGPT writes them, {from, value}, as messages; anything else as it is."""
    if not isinstance(turns, list):
        return turns
    return [
        {"role": SPEAKERS.get(str(turn["from"]), turn["from"]), "content": turn["value"]}
        if isinstance(turn, dict) and turn.get("role") is None and {"from", "value"} <= turn.keys()
        else turn
        for turn in turns
    ]


def problem_with(messages: Any, open_end: bool = False) -> str:
    """Why this is no conversation to learn from, or ("" or why) to answer when its end is open."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return "messages are not a list of {role, content}"
    before = ""
    for at, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            return f"unknown role {role!r}"
        if not isinstance(content, str) or not content.strip():
            return f"{role} turn without text"
        if role == "system" and at > 0:
            return "a system message after the first turn"
        if role == before:
            return f"two {role} turns in a row"
        if role == "assistant" and before in ("", "system"):
            return "the conversation begins with the assistant"
        before = role
    if open_end:
        return "" if before == "user" else "the conversation does not end with a user turn"
    return "" if any(message["role"] == "assistant" for message in messages) else "no assistant turn"


def turns_of(prompt: str) -> list[Message]:
    """The turns that a prompt stands for: those of a JSON list of messages that ends with the user, else one."""
    if prompt.lstrip().startswith("["):
        try:
            found = json.loads(prompt)
        except ValueError:
            found = None
        if not problem_with(found, open_end=True):
            return [{"role": m["role"], "content": m["content"]} for m in found]
    return [{"role": "user", "content": prompt}]


def prompt_of(turns: list[Message]) -> str:
    """The text that `turns_of` makes these turns of."""
    alone = turns[0]["content"] if len(turns) == 1 else ""
    return alone if turns_of(alone) == turns else json.dumps(turns, ensure_ascii=False)


def conversation(prompt: str, system: str | None = None) -> list[Message]:
    """The messages up to the answer."""
    turns = turns_of(prompt)
    return [{"role": "system", "content": system}, *turns] if system and turns[0]["role"] != "system" else turns


def shown(prompt: str) -> str:
    """A prompt as a person reads it."""
    turns = turns_of(prompt)
    return prompt if len(turns) == 1 else "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def answers_of(rows: pd.DataFrame) -> list[str]:
    """All answers of each row."""
    asked = [[m["content"] for m in turns_of(prompt) if m["role"] == "assistant"] for prompt in rows["prompt"]]
    return ["\n".join([*earlier, response]) for earlier, response in zip(asked, rows["response"], strict=True)]
