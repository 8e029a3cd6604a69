"""Turns of a conversation as other tools write them, as messages of one form.

Read are the messages of OpenAI (content in parts, tool calls, weights), the turns of ShareGPT, pairs of question and
answer (the history of Alpaca, Firefly, XTuner), and the turns of MOSS.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

Message = dict[str, Any]
"""`role` and `content`; where there are any `reasoning_content`, `tool_calls`, `tool_call_id`, `name`, `weight` (0)."""
ROLES = {
    **dict.fromkeys(("system", "developer", "系统"), "system"),
    **dict.fromkeys(("user", "human", "用户"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "助手"), "assistant"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
}
"""What speakers are called -> the role."""
CALLING = ("function_call", "tool_call")
"""Speakers whose text is the call of a tool."""
SPEAKERS, CONTENTS = ("role", "from", "speaker"), ("content", "value", "text")
REASONING = ("reasoning_content", "reasoning", "thinking")
WEIGHTS = ("weight", "loss_weight", "train", "loss")
ASKED, ANSWERED = ("human", "user", "question", "input", "prompt"), ("assistant", "gpt", "answer", "output", "response")
EMPTY: tuple[Any, ...] = (None, "", [], {})


def parsed(value: Any) -> Any:
    """What a text of JSON stands for, as cells of a table have it; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def as_messages(turns: Any, notes: Counter[str] | None = None) -> Any:
    """The turns as messages, whatever their format; no list of turns as it is. `notes` counts what is not used."""
    turns, notes = parsed(turns), Counter() if notes is None else notes
    if isinstance(turns, dict) and turns and all(isinstance(turn, dict) for turn in turns.values()):
        turns = list(turns.values())
    if not isinstance(turns, list) or not all(isinstance(turn, dict) or _is_pair(turn) for turn in turns):
        return turns
    found: list[Message] = []
    for turn in turns:
        for message in _messages(turn, notes):
            _add(found, message)
    return found


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)


def _messages(turn: Any, notes: Counter[str]) -> list[Message]:
    """The messages of one turn: it may be a question with its answer."""
    if isinstance(turn, list):
        return [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    if {"Human", "MOSS"} <= turn.keys():
        return _moss(turn, notes)
    speaks = any(turn.get(name) is not None for name in SPEAKERS)
    asked = next((name for name in ASKED if name in turn), None)
    answered = next((name for name in ANSWERED if name in turn), None)
    if speaks or asked is None or answered is None:
        return [_message(turn, notes)]
    system = {"system"} if isinstance(turn.get("system"), str) else set()
    answer = {name: value for name, value in turn.items() if name not in {asked, answered, *system}}
    first = [{"role": "system", "content": turn["system"]}] if system and turn["system"].strip() else []
    question = _message({"role": "user", "content": turn[asked]}, notes)
    return [*first, question, _message({**answer, "role": "assistant", "content": turn[answered]}, notes)]


def _message(turn: dict[str, Any], notes: Counter[str]) -> Message:
    speaker = next((name for name in SPEAKERS if turn.get(name) is not None), "role")
    content = next((name for name in CONTENTS if turn.get(name) is not None), "content")
    given, used = turn.get(speaker), {*SPEAKERS, *CONTENTS}
    role = ROLES.get(str(given).lower(), given)
    text, thought, others = _text(turn.get(content))
    message: Message = {"role": role, "content": text}
    if others:
        message["parts"] = others
    if str(given).lower() in CALLING:
        message |= {"content": "", "tool_calls": _calls(text)}
    used |= set(_kept(message, turn))
    if role == "assistant":
        used |= _of_assistant(message, turn, thought, notes)
    notes.update(f"turns with {k!r}, which is not used" for k, v in turn.items() if k not in used and v not in EMPTY)
    return message


def _kept(message: Message, turn: dict[str, Any]) -> tuple[str, ...]:
    """Take over what a result of a tool, or a system message, has beside its text; the keys of it."""
    names = {"tool": ("tool_call_id", "name"), "system": ("tools",)}.get(str(message["role"]), ())
    message.update({name: turn[name] for name in names if turn.get(name) not in EMPTY})
    return names


def _of_assistant(message: Message, turn: dict[str, Any], thought: str, notes: Counter[str]) -> set[str]:
    """Take over what an answer has beside its text; the keys of it."""
    thoughts = [turn[name] for name in REASONING if isinstance(turn.get(name), str) and turn[name].strip()]
    if thought or thoughts:
        message["reasoning_content"] = thought or thoughts[0]
    for name in ("tool_calls", "function_call"):
        if turn.get(name) not in EMPTY:
            message["tool_calls"] = _calls(turn[name])
    weights = [str(turn[name]).lower() for name in WEIGHTS if turn.get(name) is not None]
    if any(weight in ("0", "0.0", "false") for weight in weights):
        message["weight"] = 0
    elif any(weight not in ("1", "1.0", "true") for weight in weights):
        notes["answers whose weight is neither 0 nor 1, learned with weight 1"] += 1
    return {*REASONING, "tool_calls", "function_call", *WEIGHTS}


def _text(content: Any) -> tuple[str, str, list[str]]:
    """(text, reasoning, types of what is neither) of a content, which may be a list of parts."""
    if not isinstance(content, list):
        text = "" if content is None else content if isinstance(content, str) else _json(content)
        return text, "", []
    texts, thoughts, others = [], [], []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        found = part if isinstance(part, str) else isinstance(part, dict) and _content_of(part, kind)
        if kind in ("reasoning", "thinking") and isinstance(found, str):
            thoughts.append(found)
        elif kind in ("text", "input_text", "output_text", "refusal") and isinstance(found, str):
            texts.append(found)
        elif found or kind not in ("text", "input_text", "output_text"):
            others.append(str(kind))
    return "\n".join(texts), "\n".join(thoughts), others


def _content_of(part: dict[str, Any], kind: str) -> Any:
    return next((part[key] for key in ("text", kind, "value", "content") if part.get(key)), None)


def _calls(value: Any) -> Any:
    """Calls of tools in OpenAI's form, their arguments as objects; as they are where they are not {name, arguments}."""
    value = parsed(value)
    found = []
    for call in value if isinstance(value, list) else [value]:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return value
        given: Any = next(
            (function[name] for name in ("arguments", "parameters") if function.get(name) is not None), {}
        )
        identity = {"id": call["id"]} if call.get("id") else {}
        called = {"name": function["name"], "arguments": _without_gaps(parsed(given))}
        found.append({**identity, "type": "function", "function": called})
    return found


def are_calls(value: Any) -> bool:
    """Whether these are calls of tools in OpenAI's form."""
    return isinstance(value, list) and all(isinstance(call, dict) and "function" in call for call in value)


def tools_in(value: Any) -> list[Any] | None:
    """Definitions of tools in OpenAI's form, of a list or its JSON. None where they are none."""
    value = _without_gaps(parsed(value))
    tools = [] if value in EMPTY else value if isinstance(value, list) else [value]
    if not all(isinstance(tool, dict) and ("name" in tool or isinstance(tool.get("function"), dict)) for tool in tools):
        return None
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def _without_gaps(value: Any) -> Any:
    """Without keys that have no value, as Parquet gives every object those of all others."""
    if isinstance(value, dict):
        return {key: _without_gaps(inner) for key, inner in value.items() if inner is not None}
    return [_without_gaps(inner) for inner in value] if isinstance(value, list) else value


def _add(messages: list[Message], message: Message) -> None:
    """Append a message; system messages at the start are one, and so are an answer and the calls that follow it."""
    last = messages[-1] if messages else None
    if last is not None and last["role"] == message["role"] == "system" and len(messages) == 1:
        last.update({**message, **last, "content": f"{last['content']}\n\n{message['content']}".strip()})
    elif last is not None and last["role"] == message["role"] == "assistant" and _only_calls(last, message):
        last["tool_calls"] = [*last.get("tool_calls", []), *message["tool_calls"]]
        last.update({name: message[name] for name in ("weight",) if name in message})
    else:
        messages.append(message)


def _only_calls(last: Message, message: Message) -> bool:
    """Whether all that a message has beside the one before it are calls of tools."""
    there = are_calls(message.get("tool_calls")) and are_calls(last.get("tool_calls", []))
    return there and not message["content"] and "reasoning_content" not in message


def _moss(turn: dict[str, Any], notes: Counter[str]) -> list[Message]:
    """A turn of MOSS: a question, a thought, commands with their results, the answer; each in marks."""
    said = {name: re.sub(r"^\s*<\|[^|>]*\|>:?|<eo[a-z]>\s*$", "", str(text)).strip() for name, text in turn.items()}
    there = {name: text for name, text in said.items() if text not in ("", "None")}
    thought = {"reasoning_content": there["Inner Thoughts"]} if "Inner Thoughts" in there else {}
    found: list[Message] = [{"role": "user", "content": there.get("Human", "")}]
    if "Commands" in there:
        calls = re.findall(r"(\w+)\((.*?)\)(?=\s*(?:,\s*\w+\(|$))", there["Commands"], re.DOTALL)
        called = [{"name": name, "arguments": {"input": given.strip("\"'")}} for name, given in calls]
        found.append({"role": "assistant", "content": "", **thought, "tool_calls": _calls(called or there["Commands"])})
        found.append({"role": "tool", "content": there.get("Tool Responses", "")})
        thought = {}
    used = {"Human", "MOSS", "Commands", "Tool Responses", "Inner Thoughts"}
    notes.update(f"turns with {name!r}, which is not used" for name in there if name not in used)
    return [*found, {"role": "assistant", "content": there.get("MOSS", ""), **thought}]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
