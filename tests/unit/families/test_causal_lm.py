"""Documents as windows, conversations as tokens, and models that answer and stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from apf_tasks.errors import ModelError
from apf_tasks.evaluation.predictor import (
    WRITING_TOKENS,
    Placement,
    Predictor,
    metric_scores,
    predict_and_tune,
    predict_rows,
)
from apf_tasks.examples import IGNORE_INDEX, Columns, Examples, token_table
from apf_tasks.families.causal_lm import family
from apf_tasks.families.causal_lm.chat import DEFAULT_TEMPLATE, Chat
from apf_tasks.families.causal_lm.conversations import prompt_of, turns_of
from apf_tasks.families.causal_lm.family import SAMPLES, CausalLMParams
from apf_tasks.family import Family, Prediction, get_family
from apf_tasks.models.pretrained import BaseModelInfo, load_base
from apf_tasks.params.model import ModelParams
from apf_tasks.params.train import TrainParams
from apf_tasks.serving.register import REPLAYED_ROWS
from apf_tasks.training.loop import train_steps
from apf_tasks.training.optim.from_params import build
from tests.support.tiny import tiny_bert, tiny_model

DOCUMENTS = get_family(CausalLMParams(name="causal_lm"))
INSTRUCTIONS = get_family(CausalLMParams(name="causal_lm", mode="instructions", max_new_tokens=12))
SYSTEMS = get_family(CausalLMParams(name="causal_lm", mode="instructions", systems=True))
TEXTS = ["What does a cow say? A cow says moo.", "What does a cat say? A cat says meow.", "You are brief. Name two."]
CHATML = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
FORGETFUL = (  # writes a thought before the last answer alone, as Qwen3 does
    "{%- for m in messages -%}{{ '[' + m['role'] + ']' }}"
    "{%- if m['role'] == 'assistant' and loop.last -%}{{ '(thought)' }}{%- endif -%}"
    "{{ m['content'] + eos_token }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '[assistant]' }}{%- endif -%}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "gpt2", "gpt2", TEXTS, vocab_size=320, max_tokens=128)


def base_of(folder: Path, max_tokens: int = 128, added: tuple[str, ...] = ()) -> BaseModelInfo:
    return load_base(folder, ModelParams(base=str(folder), max_tokens=max_tokens, added_tokens=list(added)))


def pairs(*found: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame([{"prompt": prompt, "response": response} for prompt, response in found])


def turns(*contents: str) -> list[dict[str, str]]:
    """The user begins."""
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def of_messages(*found: Any, family: Family = INSTRUCTIONS) -> pd.DataFrame:
    checked = family.check(pd.DataFrame({"messages": pd.Series(list(found), dtype=object)}))
    assert set(checked.reasons) == {""}
    return checked.rows


def learned(columns: Columns, base: BaseModelInfo, at: int = 0) -> str:
    return str(base.tokenizer.decode([label for label in columns["labels"][at] if label != IGNORE_INDEX]))


def test_a_document_is_read_in_windows_and_every_token_is_foreseen_once(folder: Path) -> None:
    base = base_of(folder, max_tokens=8)
    columns = DOCUMENTS.encode(pd.DataFrame({"text": ["What does a cow say? A cow says moo.", "A"]}), base, ())
    end = base.tokenizer.eos_token_id
    ids = base.tokenizer("What does a cow say? A cow says moo.", add_special_tokens=False)["input_ids"]
    assert len(ids) > 8
    whole = [end, *ids, end]  # this tokenizer has one token for both ends
    starts = range(0, len(whole) - 1, 7)
    assert columns["input_ids"][:-1] == [whole[at : at + 8] for at in starts]
    foreseen = [label for labels in columns["labels"][:-1] for label in labels if label != IGNORE_INDEX]
    assert foreseen == whole[1:]
    assert {labels[0] for labels in columns["labels"]} == {IGNORE_INDEX}, "nothing stands before the first token"
    assert columns["row"] == [0] * len(starts) + [1]
    assert columns["input_ids"][-1][0] == columns["input_ids"][-1][-1] == end
    assert columns["truncated"] == [False] * (len(starts) + 1)


def test_scores_are_exp_of_nats_per_token_and_bits_per_byte() -> None:
    # 2 rows: 6 nats over 3 tokens and 2 bytes, 2 nats over 1 token and 3 bytes (a Chinese character)
    sums = DOCUMENTS.statistics(["ab", "中"], [[6.0, 3.0], [2.0, 1.0]], ())
    assert sums.tolist() == [[6, 3, 2], [2, 1, 3]]
    found = metric_scores(DOCUMENTS, sums)
    assert found["perplexity"] == pytest.approx(7.389056)  # e^(8/4)
    assert found["bits_per_byte"] == pytest.approx(2.308312)  # 8 / (5 ln 2)


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    tiny_bert(tmp_path / "bert")
    with pytest.raises(ModelError, match=r"a decoder \(causal attention\), found bert, .*masked_lm"):
        DOCUMENTS.load_model(tmp_path / "bert", ModelParams(base=str(tmp_path / "bert")), ())


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "no messages"),
        ("hello", "messages are not a list of {role, content}"),
        (["hello"], "messages are not a list of {role, content}"),
        ([], "no assistant turn"),
        (turns("a"), "no assistant turn"),
        ([*turns("a"), *turns("b", "c")], "two user turns in a row"),
        ([*turns("a", "b"), {"role": "assistant", "content": "c"}], "two assistant turns in a row"),
        ([{"role": "assistant", "content": "c"}, *turns("a", "b")], "the conversation begins with the assistant"),
        ([{"role": "tool", "content": "c"}, *turns("a", "b")], "a tool turn that follows no assistant turn"),
        ([{"content": "c"}, *turns("a", "b")], "unknown role None"),
        (turns("a", " "), "assistant turn without text"),
        ([{"from": "narrator", "value": "a"}, *turns("b", "c")], "unknown role 'narrator'"),
        ([{"from": ["gpt"], "value": "a"}, *turns("b", "c")], "unknown role ['gpt']"),
        ([{"from": "human", "value": None}, *turns("b", "c")], "user turn without text"),
        ([{"role": "user", "content": [{"type": "image"}]}, *turns("a", "b")], "user turn without text"),
        ([*turns("a", "b"), {"role": "system", "content": "s"}], "a system message after the first turn"),
        ([{"role": "system", "content": "s"}, *turns("a", "b")], "a system message: write family.systems: true"),
    ],
)
def test_a_conversation_that_cannot_be_used_has_its_reason(messages: Any, reason: str) -> None:
    rows = pd.DataFrame({"messages": pd.Series([messages, turns("a", "b")], dtype=object)})
    assert list(INSTRUCTIONS.check(rows).reasons) == [reason, ""]


def test_a_pair_that_cannot_be_used_has_its_reason() -> None:
    rows = [["a", "b"], [None, "b"], ["a", None], [[1], "b"], ["a", {"b": 1}], [["One.", "Two."], "b"]]
    checked = INSTRUCTIONS.check(pd.DataFrame(rows, columns=["prompt", "response"], dtype=object))
    assert list(checked.reasons) == [
        "",
        "no prompt",
        "no response",
        "the prompt is not text",
        "the response is not text",
        "",
    ]
    assert checked.rows["prompt"][5] == "One. Two."


def test_turns_of_sharegpt_are_messages() -> None:
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    told = [{"from": "system", "value": "s", "weight": None}, *talk]
    found = SYSTEMS.check(pd.DataFrame({"messages": pd.Series([talk, told], dtype=object)}))
    assert found.rows[["prompt", "response", "system"]].values.tolist() == [["a", "b", ""], ["a", "b", "s"]]


def test_messages_become_a_prompt_and_a_response_that_say_the_same() -> None:
    several, looks_like_several = turns("a", "b", "c"), json.dumps(turns("x"))
    rows = of_messages(
        turns("a", "b"), [*several, {"role": "assistant", "content": "d"}], turns(looks_like_several, "e")
    )
    assert list(rows["response"]) == ["b", "d", "e"]
    assert rows["prompt"][0] == "a"
    assert json.loads(rows["prompt"][1]) == several
    assert [turns_of(prompt) for prompt in rows["prompt"]] == [turns("a"), several, turns(looks_like_several)]
    assert list(INSTRUCTIONS.check(rows[["prompt", "response"]]).reasons) == ["", "", ""]
    assert INSTRUCTIONS.reference(rows)[1] == "b\nd"


@pytest.mark.parametrize("prompt", ["plain", "[1, 2]", "[not json", '["a"]', '[{"role": "user"}]', "[]", " [x"])
def test_a_prompt_that_is_no_list_of_messages_is_what_the_user_says(prompt: str) -> None:
    assert turns_of(prompt) == [{"role": "user", "content": prompt}]
    assert prompt_of(turns_of(prompt)) == prompt


def test_a_last_question_without_an_answer_is_left_out_and_counted() -> None:
    checked = INSTRUCTIONS.check(pd.DataFrame({"messages": [turns("a", "b", "c"), turns("d", "e")]}))
    assert list(checked.rows["prompt"]) == ["a", "d"]
    assert checked.notes == {"last user turns without an answer left out": 1}


def test_answers_and_their_ends_are_learned_and_nothing_else(folder: Path) -> None:
    base = base_of(folder)
    rows = of_messages(turns("What does a cow say?", "moo", "A cat?", "meow"))
    columns = INSTRUCTIONS.encode(rows, base, ())
    end = base.tokenizer.eos_token
    first = f"<|user|>\nWhat does a cow say?{end}\n<|assistant|>\nmoo{end}\n"
    second = f"<|user|>\nA cat?{end}\n<|assistant|>\nmeow{end}\n"
    assert base.tokenizer.decode(columns["input_ids"][0]) == first + second
    assert learned(columns, base) == f"moo{end}meow{end}"
    assert columns["labels"][0][0] == IGNORE_INDEX
    assert columns["row"] == [0]


def test_a_prompt_has_the_tokens_that_it_had_before_its_answer(folder: Path) -> None:
    base = base_of(folder)
    rows = of_messages(turns("A cow?", "moo", "A cat?", "meow"), turns("A cow?", "moo"))
    trained = INSTRUCTIONS.encode(rows, base, ())
    served = INSTRUCTIONS.encode(rows[["prompt"]], base, ())
    for at in range(2):
        asked = served["input_ids"][at]
        assert trained["input_ids"][at][: len(asked)] == asked
        assert trained["prompt"][at] == served["prompt"][at] == [i + 1 for i in asked]
        rest = trained["labels"][at][len(asked) :]
        assert rest[0] != IGNORE_INDEX
    assert {label for labels in served["labels"] for label in labels} == {IGNORE_INDEX}


def test_the_first_rows_are_answered_in_words_too(folder: Path) -> None:
    assert SAMPLES == REPLAYED_ROWS
    rows = pairs(*((f"A cow {i}?", "moo") for i in range(SAMPLES + 3)))
    asked = [bool(prompt) for prompt in INSTRUCTIONS.encode(rows, base_of(folder), ())["prompt"]]
    assert asked == [True] * SAMPLES + [False] * 3


def test_a_template_of_its_own_is_used_and_its_mark_ends_an_answer(folder: Path) -> None:
    base = base_of(folder, added=("<|im_start|>", "<|im_end|>"))
    base.tokenizer.chat_template = CHATML
    columns = INSTRUCTIONS.encode(pairs(("A cow?", "moo")), base, ())
    assert learned(columns, base) == "moo<|im_end|>"
    chat = Chat.of(base)
    mark = base.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert set(chat.stops) == {mark, base.tokenizer.eos_token_id}
    assert chat.text_of([*base.tokenizer("moo")["input_ids"], mark]) == "moo"


def test_a_mark_of_several_tokens_is_followed_by_the_end_of_text(folder: Path) -> None:
    base = base_of(folder)
    base.tokenizer.chat_template = CHATML  # whose marks this tokenizer does not know
    columns = INSTRUCTIONS.encode(pairs(("A cow?", "moo")), base, ())
    assert learned(columns, base) == f"moo<|im_end|>{base.tokenizer.eos_token}"
    chat = Chat.of(base)
    assert chat.stops == (base.tokenizer.eos_token_id,)
    assert chat.text_of(base.tokenizer("moo<|im_end|>")["input_ids"]) == "moo"


def test_a_template_that_rewrites_earlier_answers_gives_an_example_for_each(folder: Path) -> None:
    base = base_of(folder)
    base.tokenizer.chat_template = FORGETFUL
    columns = INSTRUCTIONS.encode(of_messages(turns("A cow?", "moo", "A cat?", "meow"), turns("x", "y")), base, ())
    end = base.tokenizer.eos_token
    assert columns["row"] == [0, 0, 1]
    assert [learned(columns, base, at) for at in range(3)] == [f"(thought){word}{end}" for word in ("moo", "meow", "y")]
    second = base.tokenizer.decode(columns["input_ids"][1])
    assert second == f"[user]A cow?{end}[assistant]moo{end}[user]A cat?{end}[assistant](thought)meow{end}"
    assert [bool(prompt) for prompt in columns["prompt"]] == [False, True, True]


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{{ raise_exception('no such role') }}", r"to write a conversation, found no such role"),
        (
            "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}>{% endif %}",
            "begins where",
        ),
    ],
)
def test_a_template_that_cannot_be_used_says_so(folder: Path, template: str, found: str) -> None:
    base = base_of(folder)
    base.tokenizer.chat_template = template
    with pytest.raises(ModelError, match=found):
        INSTRUCTIONS.encode(pairs(("a", "b")), base, ())


def test_a_tokenizer_without_an_end_of_text_is_refused(folder: Path) -> None:
    base = base_of(folder)
    base.tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"a token that ends a text, found a tokenizer without one"):
        INSTRUCTIONS.encode(pairs(("a", "b")), base, ())


def test_a_long_conversation_loses_its_earliest_turns(folder: Path) -> None:
    base = base_of(folder, max_tokens=64)
    system = {"role": "system", "content": "You are brief."}
    rows = of_messages([system, *turns("A cow?" * 9, "moo", "A cat?", "meow")], turns("A cat?", "meow"), family=SYSTEMS)
    columns = SYSTEMS.encode(rows, base, ())
    assert columns["truncated"] == [True, False]
    text = base.tokenizer.decode(columns["input_ids"][0])
    assert text.startswith("<|system|>\nYou are brief.")
    assert "cow" not in text
    assert learned(columns, base) == f"meow{base.tokenizer.eos_token}"


@pytest.mark.parametrize(("asked", "answered"), [(200, 5), (5, 200), (200, 200), (31, 31)])
def test_what_is_too_long_is_never_left_without_an_answer(folder: Path, asked: int, answered: int) -> None:
    base = base_of(folder, max_tokens=32)
    rows = pairs(("q" * asked, "z" * answered))
    columns = INSTRUCTIONS.encode(rows, base, ())
    letter = base.tokenizer("z")["input_ids"][0]
    assert len(columns["input_ids"][0]) == 32
    assert columns["truncated"] == [True]
    assert columns["labels"][0][0] == IGNORE_INDEX
    supervised = [label for label in columns["labels"][0] if label != IGNORE_INDEX]
    assert supervised[0] == letter
    assert len(supervised) == (6 if answered == 5 else 16)
    assert (base.tokenizer.eos_token_id in supervised) == (answered == 5)
    served = INSTRUCTIONS.encode(rows[["prompt"]], base, ())
    assert len(served["input_ids"][0]) <= 32 - 12  # max_new_tokens


def test_a_system_message_goes_before_the_conversation(folder: Path) -> None:
    base = base_of(folder)
    rows = of_messages([{"role": "system", "content": "Brief!"}, *turns("a", "b")], turns("c", "d"), family=SYSTEMS)
    assert list(rows["system"]) == ["Brief!", ""]
    assert set(SYSTEMS.example) == {"prompt", "system"}
    found = [base.tokenizer.decode(ids) for ids in SYSTEMS.encode(rows, base, ())["input_ids"]]
    end = base.tokenizer.eos_token
    assert found[0].startswith(f"<|system|>\nBrief!{end}\n<|user|>\na")
    assert found[1].startswith("<|user|>\nc")
    served = SYSTEMS.encode(rows[["prompt", "system"]], base, ())
    assert (
        base.tokenizer.decode(served["input_ids"][0]) == f"<|system|>\nBrief!{end}\n<|user|>\na{end}\n<|assistant|>\n"
    )


ANSWERS = {"A cow?": "moo", "A cat?": "meow meow meow", "Name two.": "You are brief. Name two."}


@pytest.fixture(scope="module")
def overfitted(folder: Path) -> Predictor:
    """A tiny model that knows three answers by heart."""
    params = ModelParams(base=str(folder), max_tokens=64)
    torch.manual_seed(0)
    model = INSTRUCTIONS.load_model(folder, params, ())
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    network = Predictor(
        model, load_base(folder, params), INSTRUCTIONS, (), Placement(torch.device("cpu"), torch.float32)
    )
    examples = Examples(token_table(INSTRUCTIONS.encode(pairs(*ANSWERS.items()), network.base, ())))
    train = TrainParams(learning_rate=1e-2, epochs=150, batch_size=3)
    losses = [s.loss for s in train_steps(network, build(train.optimizer, model, 1e-2, 0.0), examples, train)]
    assert losses[-1] < 0.1 < losses[0]
    return network


def answer(network: Predictor, prompts: list[str]) -> list[str]:
    rows = pd.DataFrame({"prompt": prompts})
    found = predict_rows(network, Examples(token_table(INSTRUCTIONS.encode(rows, network.base, ()))), rows, {})
    return [prediction["response"] for prediction in found]


def test_a_model_answers_what_it_has_learned_and_stops(overfitted: Predictor) -> None:
    assert answer(overfitted, list(ANSWERS)) == list(ANSWERS.values())
    model, base = overfitted.model, overfitted.base
    assert base.pad_id != base.tokenizer.eos_token_id
    asked = INSTRUCTIONS.encode(pd.DataFrame({"prompt": ["A cow?"]}), base, ())["input_ids"]
    written = model.generate(torch.tensor(asked), max_new_tokens=30, do_sample=False)  # type: ignore[operator]
    new = written[0, len(asked[0]) :].tolist()
    assert new[-1] == base.tokenizer.eos_token_id
    assert len(new) < 10


def test_an_answer_does_not_depend_on_those_beside_it(overfitted: Predictor) -> None:
    longer = "Name two. " * 4
    assert answer(overfitted, ["A cow?", longer])[0] == "moo"


def test_an_answer_that_does_not_stop_is_cut(overfitted: Predictor) -> None:
    family = get_family(CausalLMParams(name="causal_lm", mode="instructions", max_new_tokens=1))
    network = Predictor(overfitted.model, overfitted.base, family, (), overfitted.place)
    found = answer(network, ["Name two."])
    assert len(overfitted.base.tokenizer(found[0])["input_ids"]) == 1, found


def validated(network: Predictor) -> list[Prediction]:
    """What a validation during training finds."""
    rows = pairs(*ANSWERS.items())
    examples = Examples(token_table(INSTRUCTIONS.encode(rows, network.base, ())))
    return predict_and_tune(network, examples, rows)[0]


def test_a_validation_scores_and_writes_nothing(overfitted: Predictor) -> None:
    rows = pairs(*ANSWERS.items())
    examples = Examples(token_table(INSTRUCTIONS.encode(rows, overfitted.base, ())))
    found = validated(overfitted)
    assert [sorted(p) for p in found] == [["perplexity", "prediction", "tokens"]] * 3
    tested = predict_rows(overfitted, examples, rows, {})
    assert found == [{name: p[name] for name in found[0]} for p in tested]
    assert [p["response"] == "" for p in tested] == [False] * 3, "in the test all are answered"


def test_scored_rows_are_scored_and_answered(overfitted: Predictor, tmp_path: Path) -> None:
    rows = pairs(*ANSWERS.items())
    examples = Examples(token_table(INSTRUCTIONS.encode(rows, overfitted.base, ())))
    found = predict_rows(overfitted, examples, rows, {})
    assert [p["response"] for p in found] == list(ANSWERS.values())
    assert [p["tokens"] for p in found] == [
        sum(x != -100 for x in labels) for labels in examples.take([0, 1, 2])["labels"]
    ]  # type: ignore[arg-type]
    known = [p["perplexity"] for p in found]
    assert 1 <= min(known) <= max(known) < 1.3, "answers that were learned by heart"
    assert INSTRUCTIONS.details is not None
    shown = INSTRUCTIONS.details(rows, found, (), tmp_path)
    assert shown["samples"][0] | {"perplexity": 0} == {
        "prompt": "A cow?",
        "reference": "moo",
        "response": "moo",
        "perplexity": 0,
    }
    lines = (tmp_path / "samples.md").read_text().splitlines()
    assert lines[0] == "| prompt | reference | response | perplexity |"
    assert lines[3].startswith("| A cat? | meow meow meow | meow meow meow | 1.")


def test_the_model_is_saved_with_its_template_and_where_to_stop(overfitted: Predictor, tmp_path: Path) -> None:
    validated(overfitted)
    overfitted.model.save_pretrained(tmp_path / "saved")
    overfitted.base.tokenizer.save_pretrained(tmp_path / "saved")
    assert base_of(tmp_path / "saved", 64).tokenizer.chat_template == DEFAULT_TEMPLATE
    written = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert written["eos_token_id"] == [overfitted.base.tokenizer.eos_token_id]


def test_cells_of_a_table_stay_cells(overfitted: Predictor, tmp_path: Path) -> None:
    rows = pairs(("a | b\nc <b>", "d\\"))
    found = [{"prediction": [1.0, 1.0], "perplexity": 2.0, "response": "e"}]
    assert INSTRUCTIONS.details is not None
    INSTRUCTIONS.details(rows, found, (), tmp_path)
    assert (tmp_path / "samples.md").read_text().splitlines()[2] == r"| a \| b c &lt;b> | d\\ | e | 2.00 |"


def test_prompts_are_answered_together_whatever_the_lengths_of_their_rows(
    overfitted: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "SAMPLES", 3)
    rows = pairs(("A cow?", "moo"), ("A cow?", "moo " * 9), ("A cat?", "meow"), *[("A cat?", "meow " * 9)] * 4)
    examples = Examples(token_table(INSTRUCTIONS.encode(rows, overfitted.base, ())))
    together: list[int] = []
    written = overfitted.model.generate

    def counted(**given: Any) -> Any:
        together.append(len(given["input_ids"]))
        return written(**given)  # type: ignore[operator]

    monkeypatch.setattr(overfitted.model, "generate", counted)
    monkeypatch.setitem(WRITING_TOKENS, "cpu", 3 * overfitted.base.max_tokens)
    found = predict_rows(overfitted, examples, rows, {})
    assert [row.get("response") for row in found] == ["moo", "moo", "meow meow meow", *[None] * 4]
    assert together == [3]
