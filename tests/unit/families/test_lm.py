"""The loss of language models over labelled positions alone, and n-gram baselines."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from apf_tasks.data.batching import collate
from apf_tasks.evaluation.predictor import Placement, Predictor
from apf_tasks.examples import IGNORE_INDEX, Columns, Examples, token_table
from apf_tasks.families._language_model import head, scoring
from apf_tasks.families.causal_lm.family import CausalLMParams
from apf_tasks.families.masked_lm.family import MaskedLMParams
from apf_tasks.family import BaselineInputs, Family, get_family
from apf_tasks.models.pretrained import BaseModelInfo, load_base
from apf_tasks.params.model import ModelParams
from tests.support.tiny import DECODERS, ENCODERS, review_rows, tiny_model

CPU = torch.device("cpu")
SCALED = ("gemma2", "cohere", "granite")
"""Decoders that do something to their logits."""
CAUSAL = get_family(CausalLMParams(name="causal_lm"))
MASKED = get_family(MaskedLMParams(name="masked_lm"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: tiny_model(folder / name, name) for name in (*DECODERS, *SCALED, *ENCODERS)}


def network_of(folder: Path, family: Family) -> Predictor:
    params = ModelParams(base=str(folder), max_tokens=64)
    model = family.load_model(folder, params, ())
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return Predictor(model, load_base(folder, params), family, (), Placement(CPU, torch.float32))


def columns_of(family: Family, base: BaseModelInfo, rows: int = 6) -> Columns:
    columns = family.encode(pd.DataFrame(review_rows(rows))[["text"]], base, ())
    columns = {name: columns[name] for name in columns if name not in ("truncated", "row")}
    return family.mask(columns, base, (1, 2)) if family.mask else columns


def reference_loss(model: PreTrainedModel, batch: dict[str, torch.Tensor], shift: int) -> torch.Tensor:
    """All logits of the model itself, then the loss of torch."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    kept = logits[:, : logits.shape[1] - shift]
    return F.cross_entropy(kept.flatten(0, 1), batch["labels"][:, shift:].flatten(), reduction="sum")


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize("name", [*DECODERS, *SCALED, *ENCODERS])
def test_the_loss_and_its_gradient_are_those_of_all_logits(
    name: str, pieces: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    family, shift = (MASKED, 0) if name in ENCODERS else (CAUSAL, 1)
    network = network_of(folders[name], family)
    model = network.model
    batch = collate(columns_of(family, network.base), network.base.pad_id, CPU)
    targets = int((batch["labels"] != IGNORE_INDEX).sum())
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", model.config.vocab_size * math.ceil(targets / pieces))
    assert head.head_of(model) is not None
    model.train()
    expected = reference_loss(model, batch, shift)
    found = family.loss(model, batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model, found), gradients(model, expected))


@pytest.mark.parametrize("name", ["gpt2", "bert"])  # one whose loss is torch's, and one in pieces
def test_logits_are_never_made_for_more_positions_than_fit(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = MASKED if name in ENCODERS else CAUSAL
    network = network_of(folders[name], family)
    config = network.model.config
    batch = collate(columns_of(family, network.base), network.base.pad_id, CPU)
    monkeypatch.setattr(head, "LOGITS_AT_ONCE", 10 * config.vocab_size)
    with torch.profiler.profile(record_shapes=True, acc_events=True) as profile:
        family.loss(network.model, batch).backward()
        with torch.inference_mode():
            family.predict(network.model, batch, network.base, ())
    shapes = [shape for event in profile.events() for shape in event.input_shapes if len(shape) == 2]
    rows = [shape[0] for shape in shapes if shape[1] == config.vocab_size and shape[0] != config.hidden_size]
    assert len(rows) > 10
    assert max(rows) == 10


def test_a_head_that_is_not_known_is_left_to_the_model(folders: dict[str, Path]) -> None:
    network = network_of(folders["gpt2"], CAUSAL)
    plain = network.model.forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        out = plain(*args, **kwargs)
        out.logits = 2 * out.logits
        return out

    network.model.forward = doubled
    batch = collate(columns_of(CAUSAL, network.base), network.base.pad_id, CPU)
    assert head.head_of(network.model) is None, "twice the logits are not what body and head give"
    torch.testing.assert_close(CAUSAL.loss(network.model, batch), reference_loss(network.model, batch, 1))


def test_judging_counts_nats_tokens_and_right_guesses_of_each_example(folders: dict[str, Path]) -> None:
    network = network_of(folders["qwen2"], CAUSAL)
    model, base = network.model.eval(), network.base
    columns = columns_of(CAUSAL, base)
    with torch.inference_mode():
        judged = scoring.token_log_likelihood(model, collate(columns, base.pad_id, CPU), shift=1)
        for i, (ids, labels) in enumerate(zip(columns["input_ids"], columns["labels"], strict=True)):
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            wanted = torch.tensor(labels[1:])
            nats = F.cross_entropy(logits, wanted, reduction="sum")
            right = int((logits.argmax(-1) == wanted).sum())
            assert judged[i] == pytest.approx([float(nats), len(ids) - 1, right], rel=1e-5)


def test_a_model_that_sees_what_comes_is_told_from_one_that_does_not(folders: dict[str, Path]) -> None:
    assert scoring.is_causal(network_of(folders["llama"], CAUSAL).model), "llama reads from left to right"
    assert not scoring.is_causal(network_of(folders["bert"], MASKED).model), "bert sees what comes"


def evidence(rows: list[tuple[int, list[int], list[int]]], count: int) -> BaselineInputs:
    """Of (row, ids, labels), where 0 is no label."""
    columns: Columns = {
        "input_ids": [ids for _, ids, _ in rows],
        "labels": [[label or IGNORE_INDEX for label in labels] for _, _, labels in rows],
        "row": [row for row, _, _ in rows],
    }
    return BaselineInputs(pd.DataFrame(index=range(count)), Examples(token_table(columns)))


def test_ngrams_know_the_labelled_tokens_alone_and_what_stands_before_them() -> None:
    # learned: 5 5 6 after context 9, and 6 after 5 5; tokens without a label are context only
    train = evidence([(0, [9, 5, 5, 6], [0, 5, 5, 6])], 1)
    test = evidence([(0, [9, 5, 6], [0, 5, 6]), (0, [6, 6], [0, 6]), (1, [5, 5, 6, 7], [0, 0, 6, 0])], 2)
    found = scoring.ngram_baselines(train, test)
    # 3 tokens of 2 types over 10 ids: p(5) = (2 + 2/10) / 5, p(6) = (1 + 2/10) / 5
    five, six = 2.2 / 5, 1.2 / 5
    assert found["unigram"][0] == pytest.approx([-math.log(five) - 2 * math.log(six), 3])
    assert found["unigram"][1] == pytest.approx([-math.log(six), 1])
    # 9 5 5 6 with its context: 4 tokens of 3 types
    low = {5: (2 + 3 / 10) / 7, 6: (1 + 3 / 10) / 7}
    after_five = (1 + 2 * low[6]) / 4  # 5 was followed by 5 and by 6
    after_five_five = (1 + after_five) / 2  # 5 5 was followed by 6 alone
    assert found["trigram"][1] == pytest.approx([-math.log(after_five_five), 1])
    assert all(list(row) == [row[0], tokens] for row, tokens in zip(found["trigram"], (3, 1), strict=True))


def test_columns_come_as_arrays_of_each_example() -> None:
    examples = Examples(token_table({"input_ids": [[1, 2], [3], [4, 5, 6]], "labels": [[1, 2], [3], [4, 5, 6]]}))
    assert [a.tolist() for a in scoring.arrays(examples, "input_ids")] == [[1, 2], [3], [4, 5, 6]]


def test_rows_of_several_windows_add_up() -> None:
    found = scoring.summed_pieces(
        [[{"prediction": [2.0, 1.0]}, {"prediction": [4.0, 2.0]}], [{"prediction": [0.0, 0.0]}]]
    )
    assert found[0]["prediction"] == [6.0, 3.0]
    assert found[0]["perplexity"] == pytest.approx(math.exp(2))
    assert math.isnan(found[1]["perplexity"])


def test_words_become_a_text_and_what_is_no_text_has_its_reason() -> None:
    words = [["迈向", "新", "世纪"], ["Two", "words"], None, [], [1, 2], "a text"]
    checked = scoring.check_text(pd.DataFrame({"tokens": pd.Series(words, dtype=object)}))
    assert list(checked.rows["text"][:2]) == ["迈向新世纪", "Two words"]
    assert list(checked.reasons) == ["", "", "empty text", "empty text", "the text is not a string", ""]
    texts = pd.DataFrame({"text": pd.Series(["good", None, ["One.", "Two."], {"a": 1}], dtype=object)})
    assert list(scoring.check_text(texts).reasons) == ["", "empty text", "", "the text is not a string"]
    assert scoring.check_text(texts).rows["text"][2] == "One. Two."


def test_the_easiest_and_the_hardest_texts_are_shown() -> None:
    predictions = [{"prediction": [0.0, n], "perplexity": float(p)} for n, p in [(3, 9), (0, math.nan), (2, 4), (5, 7)]]
    found = scoring.extremes(["nine", "none", "four", "x" * 999], predictions)
    assert [row["text"][:4] for row in found["easiest"]] == ["four", "xxxx", "nine"]
    assert [row["perplexity"] for row in found["hardest"]] == [9, 7, 4]
    assert len(found["easiest"][1]["text"]) == 200
    assert np.array([row["tokens"] for row in found["easiest"]]).tolist() == [2, 5, 3]
