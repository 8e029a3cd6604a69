"""Conversations as other tools write them: nothing of them is lost, and what is not used is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from apf_tasks.data.ingestion import ingest
from apf_tasks.errors import ModelError
from apf_tasks.examples import IGNORE_INDEX
from apf_tasks.families.causal_lm.conversations import answer_of, asked_of, shown
from apf_tasks.families.causal_lm.family import CausalLMParams
from apf_tasks.family import CheckedRows, get_family
from apf_tasks.models.pretrained import BaseModelInfo, load_base
from apf_tasks.params.data import DataParams
from apf_tasks.params.model import ModelParams
from tests.support.tiny import tiny_model

PARAMS = CausalLMParams(name="causal_lm", mode="instructions", systems=True, max_new_tokens=12)
FAMILY = get_family(PARAMS)
WEATHER = {"type": "function", "function": {"name": "get_weather"}}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
ASKED, CALLED = {"role": "user", "content": "Rain?"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT, ANSWER = {"role": "tool", "content": "sunny"}, {"role": "assistant", "content": "No."}
PLAIN = "{%- for m in messages -%}{{ '[' + m['role'] + ']' + m['content'] + eos_token }}{%- endfor -%}" + (
    "{%- if add_generation_prompt -%}{{ '[assistant]' }}{%- endif -%}"
)


def checked(*rows: dict[str, Any]) -> CheckedRows:
    table = pd.DataFrame(list(rows), dtype=object)
    return FAMILY.check(table.where(table.notna(), None))


def messages_of(found: CheckedRows, at: int = 0) -> list[dict[str, Any]]:
    """The conversation that a row has become."""
    assert found.reasons[at] == ""
    return [*asked_of(found.rows["prompt"][at]).messages, answer_of(found.rows["response"][at])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "gpt2", "gpt2", ["Rain? No."], vocab_size=300, max_tokens=512)


def base_of(folder: Path, max_tokens: int = 512) -> BaseModelInfo:
    return load_base(folder, ModelParams(base=str(folder), max_tokens=max_tokens))


def encoded(found: CheckedRows, base: BaseModelInfo) -> tuple[str, str]:
    """(the first row as the model reads it, what of it is learned)."""
    columns = FAMILY.encode(found.rows, base, ())
    learned = [label for label in columns["labels"][0] if label != IGNORE_INDEX]
    return str(base.tokenizer.decode(columns["input_ids"][0])), str(base.tokenizer.decode(learned))


def test_input_and_history_of_alpaca_reach_the_prompt() -> None:
    row = {"prompt": "Translate.", "response": "cat", "input": "猫", "history": [["Hi", "Hello"]], "system": "Brief."}
    found = checked(row, {**row, "input": None, "history": None, "system": None}, {**row, "history": "?"})
    assert [m["content"] for m in messages_of(found)] == ["Hi", "Hello", "Translate.\n猫", "cat"]
    assert list(found.rows["prompt"])[1] == "Translate."
    assert list(found.rows["system"])[:2] == ["Brief.", ""]
    assert found.reasons[2].startswith("history: ")
    assert found.notes["inputs appended to their prompts"] == 1
    unsaid = get_family(CausalLMParams(name="causal_lm", mode="instructions")).check(pd.DataFrame([row], dtype=object))
    assert list(unsaid.reasons) == ["a system message: write family.systems: true"]


def test_ingestion_reads_what_params_do_not_name_and_says_what_it_leaves(tmp_path: Path) -> None:
    row = {"instruction": "Translate.", "input": "猫", "output": "cat", "history": [], "source": "x"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps([row, {**row, "input": "狗"}]), encoding="utf-8")
    data = DataParams(source=str(path), columns={"prompt": "instruction", "response": "output"})
    raw = ingest(tmp_path, data, PARAMS)
    table = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(table["prompt"]) == ["Translate.\n猫", "Translate.\n狗"]
    assert list(table.columns) == ["row_id", "prompt", "response", "system", "role"]
    assert raw.describe().endswith("2 inputs appended to their prompts · 1 columns not used (source)")


def test_a_column_that_is_the_prompt_is_not_appended_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"input": "猫", "target": "cat"}))
    ingest(tmp_path, DataParams(source=str(path), columns={"prompt": "input", "response": "target"}), PARAMS)
    assert list(pd.read_parquet(tmp_path / "rows.parquet")["prompt"]) == ["猫"]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"loss_weight": 0.0}, {"train": False}])
def test_an_answer_of_weight_0_is_context_alone(mark: dict[str, Any], folder: Path) -> None:
    first = {"role": "assistant", "content": "Wrong.", **mark}
    again = {"role": "user", "content": "Again"}
    found = checked({"messages": [ASKED, first, again, {**ANSWER, "weight": 1}]})
    read, learned = encoded(found, base_of(folder))
    assert "Wrong." in read
    assert learned == f"No.{base_of(folder).tokenizer.eos_token}"
    assert FAMILY.reference(found.rows) == ["No."]


def test_answers_that_nothing_is_learned_of_are_counted() -> None:
    ignored = {**ANSWER, "weight": 0}
    found = checked(
        {"messages": [ASKED, ANSWER, ASKED, ignored]},
        {"messages": [ASKED, ignored]},
        {"messages": [ASKED, {**ANSWER, "weight": 0.5}]},
    )
    assert list(found.reasons) == ["", "no answer with a weight above 0", ""]
    assert found.notes == {
        "last answers of weight 0 left out": 1,
        "answers whose weight is neither 0 nor 1, learned with weight 1": 1,
    }


OPENAI = [ASKED, {**CALLED, "content": None}, RESULT, ANSWER]
SHAREGPT = [
    {"from": "human", "value": "Rain?"},
    {"from": "function_call", "value": json.dumps(CALL["function"])},
    {"from": "observation", "value": "sunny"},
    {"from": "gpt", "value": "No."},
]
LEGACY = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
FUNCTIONS = [
    ASKED,
    {"role": "assistant", "content": None, "function_call": LEGACY},
    {"role": "function", "content": "sunny"},
    ANSWER,
]
TEXT = [{"type": "text", "text": "Rain?"}]


@pytest.mark.parametrize("talk", [OPENAI, SHAREGPT, FUNCTIONS, [{**ASKED, "content": TEXT}, *OPENAI[1:]]])
@pytest.mark.parametrize("tools", [[WEATHER], json.dumps([{"name": "get_weather"}])])
def test_tools_their_calls_and_results_are_read_and_rendered(talk: Any, tools: Any, folder: Path) -> None:
    found = checked({"messages": talk, "tools": tools})
    assert messages_of(found) == [ASKED, CALLED, RESULT, ANSWER]
    assert asked_of(found.rows["prompt"][0]).tools == [WEATHER]
    assert "get_weather" in shown(found.rows["prompt"][0])
    read, learned = encoded(found, base_of(folder))
    end = base_of(folder).tokenizer.eos_token
    call = f"<tool_call>\n{json.dumps(CALL['function'])}\n</tool_call>{end}"
    assert read.startswith(f"<|tools|>\n{json.dumps(WEATHER)}\n{end}\n<|user|>\nRain?")
    assert f"<|assistant|>\n{call}\n<|tool|>\nsunny{end}\n" in read
    assert learned == f"{call}No.{end}"
    assert found.notes == {}


def test_a_call_as_the_last_answer_is_learned_with_its_reasoning(folder: Path) -> None:
    found = checked({"messages": [ASKED, {**CALLED, "reasoning_content": "Look."}], "tools": [WEATHER]})
    _, learned = encoded(found, base_of(folder))
    assert learned.startswith("<think>\nLook.\n</think>\n\n<tool_call>\n")


def test_a_template_that_does_not_know_reasoning_has_it_in_the_answer(folder: Path) -> None:
    base = base_of(folder)
    base.tokenizer.chat_template = PLAIN
    _, learned = encoded(checked({"messages": [ASKED, {**ANSWER, "reasoning_content": "Look."}]}), base)
    assert learned == f"<think>\nLook.\n</think>\n\nNo.{base.tokenizer.eos_token}"


@pytest.mark.parametrize(("tools", "lost"), [([WEATHER], "tools"), (None, "tool_calls")])
def test_a_template_that_leaves_tools_out_is_refused(tools: Any, lost: str, folder: Path) -> None:
    base = base_of(folder)
    base.tokenizer.chat_template = PLAIN
    with pytest.raises(ModelError, match=f"to write {lost}, found it leaves out 'get_weather'"):
        encoded(checked({"messages": [ASKED, CALLED], "tools": tools}), base)


def test_keys_and_parts_that_are_not_understood_are_said() -> None:
    image = {"role": "user", "content": [*TEXT, {"type": "image_url", "image_url": {"url": "x"}}]}
    call = {"from": "function_call", "value": "get weather!"}
    found = checked(
        {"messages": [ASKED, {**ANSWER, "mood": "good", "refusal": None}]},
        {"messages": [image, ANSWER]},
        {"messages": [ASKED, call]},
        {"messages": [ASKED, ANSWER], "tools": "a hammer"},
    )
    assert list(found.reasons) == [
        "",
        "user turn with a part of type 'image_url'",
        "a tool call that is not {name, arguments}",
        "tools are not a list of {name, description, parameters}",
    ]
    assert found.notes == {"turns with 'mood', which is not used": 1}


def test_turns_of_chinese_sets_are_messages() -> None:
    moss = {
        "Human": "<|Human|>: Rain?<eoh>\n",
        "Inner Thoughts": "<|Inner Thoughts|>: Look.<eot>\n",
        "Commands": '<|Commands|>: Search("rain")<eoc>\n',
        "Tool Responses": "<|Results|>: sunny<eor>\n",
        "MOSS": "<|MOSS|>: No.<eom>\n",
    }
    belle = [{"from": "human", "value": "Rain?"}, {"from": "assistant", "value": "No."}]
    xtuner = [{"system": "Brief.", "input": "Rain?", "output": "No."}]
    found = checked(
        {"messages": {"turn_1": moss}}, {"messages": belle}, {"messages": xtuner}, {"messages": [["Rain?", "No."]]}
    )
    search = {"type": "function", "function": {"name": "Search", "arguments": {"input": "rain"}}}
    assert messages_of(found) == [
        ASKED,
        {**CALLED, "reasoning_content": "Look.", "tool_calls": [search]},
        RESULT,
        ANSWER,
    ]
    assert [messages_of(found, at) for at in (1, 2, 3)] == [[ASKED, ANSWER]] * 3
    assert found.rows["system"][2] == "Brief."


def test_a_developer_is_a_system_and_goes_with_it() -> None:
    developer = {"role": "developer", "content": "Brief."}
    found = checked({"messages": [{"role": "system", "content": "Kind."}, developer, ASKED, ANSWER]})
    assert list(found.rows["system"]) == ["Kind.\n\nBrief."]


def test_a_long_exchange_loses_whole_answers_and_counts_as_truncated(folder: Path) -> None:
    base = base_of(folder, 160)
    talk = [ASKED, {**CALLED, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}]
    found = checked({"messages": [*talk, RESULT, {**ANSWER, "content": "No " * 200}]})
    columns = FAMILY.encode(found.rows, base, ())
    assert columns["truncated"] == [True]
    read = str(base.tokenizer.decode(columns["input_ids"][0]))
    assert read.rstrip().endswith(f"</tool_call>{base.tokenizer.eos_token}")
