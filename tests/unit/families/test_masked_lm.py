"""Whole words hidden, what stands in their place, and what a model makes of it."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from apf_tasks.data.batching import collate
from apf_tasks.errors import ModelError
from apf_tasks.evaluation.predictor import Placement, Predictor, metric_scores, predict_rows
from apf_tasks.examples import IGNORE_INDEX, Columns, Examples, token_table
from apf_tasks.families.masked_lm.family import MaskedLMParams, _filled
from apf_tasks.families.masked_lm.masking import fixed_targets, hidden_tokens, word_of_character
from apf_tasks.family import BaselineInputs, get_family
from apf_tasks.models.pretrained import BaseModelInfo, load_base
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.model import ModelParams
from tests.support.tiny import review_rows, tiny_bert, tiny_model

TEXTS = [row["text"] for row in review_rows()]
CHINESE = ["我们在北京大学学习自然语言处理。", "人民日报今天发表文章。"]
FAMILY = get_family(MaskedLMParams(name="masked_lm"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "bert", "bert", [*TEXTS, *CHINESE], vocab_size=200)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "roberta", "roberta", [*TEXTS, *CHINESE], vocab_size=300)


def base_of(folder: Path, max_tokens: int = 64) -> BaseModelInfo:
    return load_base(folder, ModelParams(base=str(folder), max_tokens=max_tokens))


def encode(texts: list[str], base: BaseModelInfo, words: str = "auto") -> Columns:
    family = get_family(MaskedLMParams.model_validate({"name": "masked_lm", "words": words}))
    return family.encode(pd.DataFrame({"text": texts}), base, ())


def drawn(columns: Columns, base: BaseModelInfo, *seeds: int, fraction: float = 0.15) -> Columns:
    family = get_family(MaskedLMParams(name="masked_lm", mask_fraction=fraction))
    assert family.mask is not None
    return family.mask(columns, base, seeds)


def words_of(columns: Columns, base: BaseModelInfo, at: int = 0) -> list[str]:
    """The tokens of each word, joined."""
    tokens, numbers = base.tokenizer.convert_ids_to_tokens(columns["input_ids"][at]), columns["words"][at]
    joined = [
        "".join(t for t, n in zip(tokens, numbers, strict=True) if n == word) for word in range(1, max(numbers) + 1)
    ]
    return [word.replace("##", "") for word in joined]


def test_english_words_are_those_of_the_tokenizer(bert: Path) -> None:
    base = base_of(bert)
    columns = encode(["a gracefulness number 12"], base)
    assert words_of(columns, base) == ["a", "gracefulness", "number", "12"]
    assert columns["words"][0][0] == columns["words"][0][-1] == 0
    assert columns["words"][0].count(2) > 1


@pytest.mark.parametrize("text", CHINESE)
def test_chinese_words_are_those_of_jieba(bert: Path, text: str) -> None:
    base = base_of(bert)
    segmented = {CHINESE[0]: ["我们", "在", "北京大学", "学习", "自然语言", "处理", "。"]}
    found = words_of(encode([text], base), base)
    assert "".join(found) == text
    assert found == segmented.get(text, found)
    assert len(found) < len(text)
    single = words_of(encode([text], base, "whitespace"), base)
    assert single == list(text)  # to BERT's tokenizer every Chinese character is a word


def test_bytes_of_a_character_belong_to_its_word(roberta: Path) -> None:
    base = base_of(roberta)
    columns = encode(["我们在北京大学学习。"], base, "jieba")
    assert max(columns["words"][0]) == 5  # 我们 在 北京大学 学习 。
    assert len(columns["input_ids"][0]) > 7


def test_the_script_decides_between_spaces_and_jieba() -> None:
    assert word_of_character("all words have spaces", "auto") is None
    assert word_of_character("我们学习", "auto") == [0, 0, 1, 1, -1]
    assert word_of_character("我们学习", "whitespace") is None
    assert word_of_character("我们 go", "jieba") == [0, 0, 1, 2, 2, -1]


def test_a_long_text_is_read_in_windows_without_overlap(bert: Path) -> None:
    base = base_of(bert, max_tokens=8)
    columns = encode([TEXTS[0], "a film"], base)
    inner = [i for ids in columns["input_ids"][:-1] for i in ids[1:-1]]
    assert inner == base.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert max(map(len, columns["input_ids"])) <= 8
    around = {(ids[0], ids[-1]) for ids in columns["input_ids"]}
    assert around == {(base.tokenizer.cls_token_id, base.tokenizer.sep_token_id)}
    assert columns["row"] == [0] * (len(columns["row"]) - 1) + [1]
    assert not [words for words in columns["words"] if 1 not in words], "words are numbered from 1 in each window"


def test_special_and_unknown_tokens_are_never_hidden(bert: Path) -> None:
    base = base_of(bert)
    columns = encode(["a film ☃ warm"], base)
    unknown = columns["input_ids"][0].index(base.tokenizer.unk_token_id)
    assert columns["words"][0][unknown] == 0
    for seed in range(30):
        labels = drawn(columns, base, seed, fraction=0.9)["labels"][0]
        assert labels[0] == labels[-1] == labels[unknown] == IGNORE_INDEX


def test_words_are_hidden_whole_and_about_as_many_as_asked(bert: Path) -> None:
    base = base_of(bert)
    columns = encode(TEXTS[:60], base)
    labels = drawn(columns, base, 3)["labels"]
    hidden = total = 0
    for words, row in zip(columns["words"], labels, strict=True):
        covered = {word for word, label in zip(words, row, strict=True) if label != IGNORE_INDEX}
        open_words = {word for word, label in zip(words, row, strict=True) if label == IGNORE_INDEX}
        assert covered
        assert not covered & open_words
        hidden += sum(label != IGNORE_INDEX for label in row)
        total += sum(word > 0 for word in words)
    assert hidden / total == pytest.approx(0.15, abs=0.02)


def test_a_word_that_does_not_fit_is_passed_over_and_one_is_always_hidden() -> None:
    random = np.random.default_rng(0)
    words = [0, 1, 1, 1, 1, 1, 1, 2, 3, 0]  # 15 % of 8 tokens is 1: the word of six never fits
    for _ in range(20):
        assert np.flatnonzero(hidden_tokens(words, 0.15, random)).tolist() in ([7], [8])
    assert hidden_tokens([0, 1, 1, 1, 2, 2, 0], 0.15, random).tolist() == [
        False,
        False,
        False,
        False,
        True,
        True,
        False,
    ]
    assert not hidden_tokens([0, 0], 0.15, random).any()


def test_most_hidden_tokens_are_masked_some_replaced_some_left(bert: Path) -> None:
    base = base_of(bert)
    columns = encode(TEXTS, base)
    mask, kinds = base.tokenizer.mask_token_id, {"mask": 0, "same": 0, "other": 0}
    for seed in range(10):
        view = drawn(columns, base, seed)
        for before, after, labels in zip(columns["input_ids"], view["input_ids"], view["labels"], strict=True):
            for old, new, label in zip(before, after, labels, strict=True):
                assert label in (old, IGNORE_INDEX)
                if label == IGNORE_INDEX:
                    assert new == old
                    continue
                assert new == mask or new not in base.tokenizer.all_special_ids
                kinds["mask" if new == mask else "same" if new == old else "other"] += 1
    total = sum(kinds.values())
    assert total > 4000
    assert kinds["mask"] / total == pytest.approx(0.8, abs=0.02)
    assert kinds["other"] / total == pytest.approx(0.1, abs=0.015)
    assert kinds["same"] / total == pytest.approx(0.1, abs=0.015)


def test_seed_epoch_and_content_decide_and_nothing_else(bert: Path) -> None:
    base = base_of(bert)
    columns = encode(TEXTS[:8], base)
    reverse = {name: values[::-1] for name, values in columns.items()}
    torch.manual_seed(1)
    first = drawn(columns, base, 5, 0)
    torch.manual_seed(2)
    np.random.default_rng(7).random()
    assert drawn(columns, base, 5, 0) == first
    assert drawn(reverse, base, 5, 0)["labels"] == first["labels"][::-1]
    assert drawn(columns, base, 5, 1)["labels"] != first["labels"]
    assert drawn(columns, base, 6, 0)["labels"] != first["labels"]
    fixed = drawn(columns, base)
    assert fixed == drawn(columns, base)
    assert fixed["labels"] != first["labels"]
    assert fixed_targets(0.15, columns) == [[i for i in labels if i != IGNORE_INDEX] for labels in fixed["labels"]]


def test_scores_are_exp_of_nats_and_share_of_right_guesses() -> None:
    found = metric_scores(FAMILY, FAMILY.statistics(["a", "b"], [[3.0, 2.0, 1.0], [3.0, 1.0, 1.0]], ()))
    assert found["pseudo_perplexity"] == pytest.approx(math.exp(2))
    assert found["masked_accuracy"] == pytest.approx(2 / 3)


def test_the_unigram_baseline_is_asked_about_the_same_hidden_tokens() -> None:
    def evidence(ids: list[list[int]], words: list[list[int]]) -> BaselineInputs:
        columns = {"input_ids": ids, "labels": ids, "words": words, "row": list(range(len(ids)))}
        return BaselineInputs(pd.DataFrame(index=range(len(ids))), Examples(token_table(columns)))

    train = evidence([[9, 5, 5, 6, 9]], [[0, 1, 2, 3, 0]])
    test = evidence([[9, 5, 9], [9, 6, 9]], [[0, 1, 0], [0, 1, 0]])
    # 3 tokens of 2 types over the ids 0 to 6: p(5) = (2 + 2/7) / 5, p(6) = (1 + 2/7) / 5; 5 is guessed
    found = FAMILY.baselines(train, test, 0)["unigram"]
    assert found[0] == pytest.approx([-math.log((2 + 2 / 7) / 5), 1, 1])
    assert found[1] == pytest.approx([-math.log((1 + 2 / 7) / 5), 1, 0])


def network_of(folder: Path) -> Predictor:
    params = ModelParams(base=str(folder), max_tokens=32)
    model = FAMILY.load_model(folder, params, ())
    return Predictor(model, load_base(folder, params), FAMILY, (), Placement(torch.device("cpu"), torch.float32))


def predicted(network: Predictor, texts: list[str]) -> list[dict[str, object]]:
    rows = pd.DataFrame({"text": texts})
    return predict_rows(network, Examples(token_table(FAMILY.encode(rows, network.base, ()))), rows, {})


def test_mask_tokens_of_the_text_are_filled_in_and_others_score_it(bert: Path) -> None:
    network = network_of(bert)
    tokenizer = network.base.tokenizer
    open_text = "a warm [MASK] with a [MASK]"
    ids = tokenizer(open_text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        best = network.model.eval()(input_ids=ids).logits[0][ids[0] == tokenizer.mask_token_id].argmax(-1)
    filled, scored = predicted(network, [open_text, "a warm film"])
    words = iter(tokenizer.decode([i]) for i in best.tolist())
    assert filled["filled"] == _filled(open_text, "[MASK]", words)
    assert "[MASK]" not in str(filled["filled"])
    assert math.isnan(float(filled["pseudo_perplexity"]))  # type: ignore[arg-type]
    assert scored["filled"] == "a warm film"
    assert float(scored["pseudo_perplexity"]) > 1  # type: ignore[arg-type]


def test_a_text_is_read_once(bert: Path) -> None:
    network = network_of(bert)
    reads: list[int] = []
    network.model.base_model.register_forward_hook(lambda module, given, found: reads.append(1))
    predicted(network, ["a warm film"])  # the head is looked for at first
    reads.clear()
    predicted(network, ["a warm film"])
    predicted(network, ["a [MASK] film"])
    assert len(reads) == 2


def test_masks_are_filled_in_order_over_windows(bert: Path) -> None:
    network = network_of(bert)
    text = " [MASK] warm".join(["a film"] * 14)
    assert len(network.base.tokenizer(text)["input_ids"]) > 32
    found = str(predicted(network, [text])[0]["filled"])
    assert "[MASK]" not in found
    assert found.startswith("a film")
    assert found.count("film") >= 14


def test_part_of_a_word_joins_what_stands_before_it() -> None:
    assert _filled("play [MASK] with [MASK]!", "[MASK]", iter(["##ing", "joy"])) == "playing with joy!"
    assert _filled("no mask", "[MASK]", iter([])) == "no mask"
    assert _filled("one <mask> two <mask>", "<mask>", iter(["a"])) == "one a two <mask>"


def test_a_base_without_a_head_gets_a_new_one_over_its_embeddings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_bert(tmp_path / "bert")
    with caplog.at_level(logging.INFO, logger="apf"):
        network = network_of(tmp_path / "bert")
    assert "new weights" in caplog.text
    assert "cls.predictions.transform.dense.weight" in caplog.text
    assert "decoder.weight" not in caplog.text
    model = network.model
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    batch = collate(
        drawn(encode(["a warm film"], network.base), network.base, 0), network.base.pad_id, torch.device("cpu")
    )
    FAMILY.loss(model, batch).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == [], "a gradient for every parameter"


def test_a_decoder_and_a_tokenizer_without_a_mask_are_refused(tmp_path: Path, bert: Path) -> None:
    gpt2 = tiny_model(tmp_path / "gpt2", "gpt2", TEXTS)
    with pytest.raises(ModelError, match="weights that AutoModelForMaskedLM loads"):
        FAMILY.load_model(gpt2, ModelParams(base=str(gpt2)), ())
    with pytest.raises(ModelError, match=r"a fast tokenizer with a mask token, found one without"):
        encode(["a"], base_of(gpt2))


def test_what_was_pretrained_is_what_is_fine_tuned(tmp_path: Path, bert: Path) -> None:
    network_of(bert).model.save_pretrained(tmp_path / "saved")
    base_of(bert).tokenizer.save_pretrained(tmp_path / "saved")
    sentiment = get_family(FamilyParams(name="sentiment"))
    model = sentiment.load_model(tmp_path / "saved", ModelParams(base=str(tmp_path / "saved")), ("bad", "good"))
    before = dict(network_of(bert).model.named_parameters())
    shared = [name for name, _ in model.named_parameters() if name in before]
    assert len(shared) > 30
    after = dict(model.named_parameters())
    pairs = {name: (after[name], before[name]) for name in shared}
    changed = [name for name, pair in pairs.items() if not torch.equal(*pair)]
    assert changed == [], "weights as pretrained"
