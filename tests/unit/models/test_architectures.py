"""Every architecture loads, trains in all its parameters and comes back as it was; and what each needs besides."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from apf_tasks.errors import ModelError
from apf_tasks.models.pretrained import BaseModelInfo, load_base, load_pretrained, load_tokenizer, resize_for
from apf_tasks.params.model import ModelParams
from apf_tasks.training.weights import (
    check_all_parameters_changed,
    load_best,
    parameter_digests,
    save_best,
    unique_weights,
)
from tests.support.tiny import DECODERS, ENCODER_DECODERS, ENCODERS, review_rows, tiny_bert, tiny_model

HEADS = {
    "encoder": ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering"),
    "decoder": ("CausalLM", "SequenceClassification", "TokenClassification"),
    "encoder-decoder": ("Seq2SeqLM",),
}
KINDS = {"encoder": ENCODERS, "decoder": DECODERS, "encoder-decoder": ENCODER_DECODERS}
CASES = [(name, head) for kind, names in KINDS.items() for name in names for head in HEADS[kind]]
TEXTS = [row["text"] for row in review_rows(8)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model folder per architecture."""
    root = tmp_path_factory.mktemp("models")
    return {name: tiny_model(root / name, name) for names in KINDS.values() for name in names}


def params(folder: Path, **more: Any) -> ModelParams:
    return ModelParams.model_validate({"base": str(folder), "max_tokens": 64, **more})


def load(folder: Path, head: str, **more: Any) -> Any:
    labels = {"num_labels": 3} if "Classification" in head else {}
    torch.manual_seed(0)
    return load_pretrained(folder, params(folder, **more), f"AutoModelFor{head}", **labels)


def batch_for(base: BaseModelInfo, head: str) -> dict[str, torch.Tensor]:
    """Pairs of texts of unlike length, with targets for the head."""
    encoded = dict(base.tokenizer(TEXTS[:4], TEXTS[4:], padding=True, return_tensors="pt"))
    ids = encoded["input_ids"]
    if head == "QuestionAnswering":
        return encoded | {"start_positions": torch.tensor([1, 2, 3, 4]), "end_positions": torch.tensor([2, 3, 4, 5])}
    if head == "SequenceClassification":
        return encoded | {"labels": torch.tensor([0, 1, 2, 0])}
    return encoded | {"labels": (ids % 3 if head == "TokenClassification" else ids).masked_fill(
        encoded["attention_mask"] == 0, -100
    )}  # fmt: skip


@pytest.mark.parametrize(("architecture", "head"), CASES)
def test_training_moves_every_parameter(folders: dict[str, Path], architecture: str, head: str) -> None:
    base = load_base(folders[architecture], params(folders[architecture]))
    model = load(folders[architecture], head).requires_grad_(True)
    before = parameter_digests(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
    # A bias on all start (or end) logits alike changes no softmax over them: of its gradient there is nothing but
    # rounding, which in one single step may be 0.
    for _ in range(4 if head == "QuestionAnswering" else 1):
        loss = model(**batch_for(base, head)).loss
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    assert check_all_parameters_changed(model, before) == model.num_parameters()


@pytest.mark.parametrize(("architecture", "head"), [(n, HEADS[k][0]) for k, names in KINDS.items() for n in names])
def test_saving_and_loading_changes_nothing(
    folders: dict[str, Path], tmp_path: Path, architecture: str, head: str
) -> None:
    base = load_base(folders[architecture], params(folders[architecture]))
    model = load(folders[architecture], head).train(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    batch = batch_for(base, head)
    expected = model(**batch).logits
    model.save_pretrained(tmp_path / "model")
    base.tokenizer.save_pretrained(tmp_path / "model")
    again = load_base(tmp_path / "model", params(tmp_path / "model"))
    assert again.tokenizer(TEXTS, TEXTS).data == base.tokenizer(TEXTS, TEXTS).data
    torch.testing.assert_close(load(tmp_path / "model", head).train(False)(**batch).logits, expected)
    save_best(tmp_path, model, 1)
    other = load(folders[architecture], head).train(False)
    load_best(tmp_path, other, 1)
    torch.testing.assert_close(other(**batch).logits, expected)


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "t5", "bart", "marian"])
def test_tied_weights_count_once(folders: dict[str, Path], architecture: str) -> None:
    head = next(head for name, head in CASES if name == architecture)
    model = load(folders[architecture], head)
    buffers = {name for name, _ in model.named_buffers()}
    unique = {name: tensor for name, tensor in unique_weights(model).items() if name not in buffers}
    assert sum(tensor.numel() for tensor in unique.values()) == model.num_parameters()
    embedding = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is embedding
    assert sum(tensor.data_ptr() == embedding.data_ptr() for tensor in unique.values()) == 1


def test_weights_that_the_configuration_calls_tied_but_the_files_do_not(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """T5 1.1 and mT5 are published so: the head is of its own, and its input not scaled."""
    model = load(folders["t5"], "Seq2SeqLM")
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(tmp_path)
    load_tokenizer(folders["t5"], params(folders["t5"])).save_pretrained(tmp_path)
    again = load(tmp_path, "Seq2SeqLM")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert again.num_parameters() == model.num_parameters()
    assert "lm_head.weight" in unique_weights(again)


def test_sines_are_no_parameters(folders: dict[str, Path]) -> None:
    """Marian never trains its table of positions, and leaves it out of its files."""
    model = load(folders["marian"], "Seq2SeqLM").requires_grad_(True)
    assert not [name for name, _ in model.named_parameters() if "embed_positions" in name]
    table = dict(model.named_buffers())["model.encoder.embed_positions.weight"]
    assert table[1, 0].item() == pytest.approx(0.8414709848)  # sin 1
    assert table[1, 16].item() == pytest.approx(0.5403023059)  # cos 1, in the second half of 32


# padding


def without_padding(folder: Path, target: Path, **special: str) -> Path:
    """The model with a tokenizer whose vocabulary has no token for padding."""
    import json

    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = load_tokenizer(folder, params(folder)).backend_tokenizer
    written = json.loads(tokenizer.to_str().replace("<|pad|>", "Ġwords that nobody wrote"))
    written["added_tokens"] = [t for t in written["added_tokens"] if t["content"] == "<|endoftext|>"]
    plain = PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer).from_str(json.dumps(written)), eos_token="<|endoftext|>", **special
    )
    plain.save_pretrained(target)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.pad_token_id = model.config.eos_token_id if special else None
    model.save_pretrained(target)
    return target


def test_a_decoder_without_padding_gets_one_that_is_not_the_end_of_text(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = without_padding(folders["gpt2"], tmp_path / "gpt2")
    base = load_base(folder, params(folder))
    size = base.config.vocab_size
    assert base.tokenizer.pad_token == "<|pad|>"
    assert base.pad_id == size  # one more than the model had
    model = load(folder, "CausalLM")
    old = load(folders["gpt2"], "CausalLM").get_input_embeddings().weight
    new = model.get_input_embeddings().weight
    assert new.shape == (size + 1, 32)
    assert model.config.pad_token_id == model.generation_config.pad_token_id == base.pad_id
    torch.testing.assert_close(new[:size], old)
    torch.testing.assert_close(new[size], old.mean(0))
    assert model.get_output_embeddings().weight is new
    model.save_pretrained(tmp_path / "trained")
    base.tokenizer.save_pretrained(tmp_path / "trained")
    assert len(load_base(tmp_path / "trained", params(folder)).tokenizer) == size + 1
    assert load(tmp_path / "trained", "CausalLM").get_input_embeddings().weight.shape == (size + 1, 32)


def test_padding_that_is_the_end_of_text_is_replaced(folders: dict[str, Path], tmp_path: Path) -> None:
    """As SmolLM2 is published: the row of the padding id learns nothing, and there it was the end of text."""
    folder = without_padding(folders["llama"], tmp_path / "llama", pad_token="<|endoftext|>", unk_token="a")
    base = load_base(folder, params(folder))
    assert (base.tokenizer.pad_token, base.pad_id) == ("a", base.tokenizer.unk_token_id)
    model = load(folder, "CausalLM")
    end = base.tokenizer.eos_token_id
    assert end == 1 != base.pad_id
    ids = torch.tensor([[20, 30, end, 40, end]])
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient[end].abs().sum() > 0
    assert gradient[base.pad_id].abs().sum() == 0


def test_the_end_of_text_stays_a_target_in_every_architecture(folders: dict[str, Path]) -> None:
    for folder in folders.values():
        base = load_base(folder, params(folder))
        assert base.pad_id != base.tokenizer.eos_token_id
        assert 0 <= base.pad_id < base.config.vocab_size


# vocabularies


def test_new_tokens_start_as_the_mean_of_the_old(folders: dict[str, Path]) -> None:
    for architecture, head in (
        ("bert", "MaskedLM"),
        ("qwen2", "CausalLM"),
        ("t5", "Seq2SeqLM"),
        ("marian", "Seq2SeqLM"),
    ):
        folder, added = folders[architecture], ["<zh>", "<en>"]
        base = load_base(folder, params(folder, added_tokens=added))
        size = base.config.vocab_size
        assert base.tokenizer.convert_tokens_to_ids(added) == [size, size + 1]
        assert "<zh>" in base.tokenizer.tokenize("a warm<zh>film")
        old, new = load(folder, head), load(folder, head, added_tokens=added)
        for layer in ("get_input_embeddings", "get_output_embeddings"):
            before, after = getattr(old, layer)().weight, getattr(new, layer)().weight
            torch.testing.assert_close(after[size:], before.mean(0).expand(2, -1))
            torch.testing.assert_close(after[:size], before)
        ids = torch.tensor([[size, size + 1, 20, 21]])
        assert new(input_ids=ids, labels=ids).logits.shape[-1] == size + 2


def test_a_vocabulary_with_rows_to_spare_stays_as_it_is(folders: dict[str, Path]) -> None:
    model = load(folders["qwen3"], "CausalLM")
    tokenizer = load_tokenizer(folders["qwen3"], params(folders["qwen3"]))
    model.resize_token_embeddings(len(tokenizer) + 24, mean_resizing=False)
    resize_for(model, tokenizer)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) + 24


def test_a_tokenizer_of_another_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    load(folders["bert"], "MaskedLM").save_pretrained(tmp_path)
    bigger = tiny_model(tmp_path / "bigger", "bert", [f"{row['text']} x{i}y" for i, row in enumerate(review_rows())])
    load_tokenizer(bigger, params(bigger)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"at most \d+ tokens, found \d+\. Use the tokenizer this model was trained"):
        load_base(tmp_path, params(tmp_path))


def test_a_tokenizer_without_a_class_of_its_own_stays_what_its_file_says(tmp_path: Path) -> None:
    """AutoTokenizer takes every Qwen2 folder for one with Qwen2's own splitting of text."""
    folder = tiny_model(tmp_path / "qwen2", "qwen2", tokenizer="wordpiece")
    assert load_tokenizer(folder, params(folder)).tokenize("a warm film!") == ["a", "warm", "film", "<unk>"]


# types of tokens, and positions


def test_token_types_go_where_a_model_tells_them_apart(folders: dict[str, Path]) -> None:
    typed = {name for name, folder in folders.items() if "token_type_ids" in names_of(folder)}
    assert typed == {"bert", "electra"}
    pair = load_tokenizer(folders["bert"], params(folders["bert"]))("a film", "a cast")
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def names_of(folder: Path) -> list[str]:
    names: list[str] = load_tokenizer(folder, params(folder)).model_input_names
    return names


def test_roberta_has_two_positions_less_than_its_table(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "roberta", "roberta", max_tokens=30, max_position_embeddings=32)
    model, most = load(folder, "MaskedLM", max_tokens=30), ModelParams(base=str(folder), max_tokens=30)
    load_base(folder, most)
    assert model(input_ids=torch.full((1, 30), 10)).logits.shape[1] == 30
    with pytest.raises(RuntimeError, match="out of bounds"):
        model(input_ids=torch.full((1, 31), 10))
    with pytest.raises(ModelError, match=r"at most 30, the positions of .*, found 31 requested"):
        load_base(folder, most.model_copy(update={"max_tokens": 31}))


# precision, tokenizers that are not fast, heads


@pytest.mark.parametrize("architecture", ["t5", "mt5"])
def test_bf16_keeps_weights_in_fp32_and_the_loss_finite(folders: dict[str, Path], architecture: str) -> None:
    """fp16 is not offered: T5's activations leave its range. bf16 has the range of fp32."""
    model = load(folders[architecture], "Seq2SeqLM").requires_grad_(True)
    base = load_base(folders[architecture], params(folders[architecture]))
    with torch.no_grad():
        model.encoder.block[0].layer[1].DenseReluDense.wo.weight.mul_(1e6)  # beyond the 65,504 of fp16
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch_for(base, "Seq2SeqLM")).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    bad = [name for name, p in model.named_parameters() if not torch.isfinite(p.grad).all()]
    assert bad == [], "finite gradients"


def marian_tokenizer(folder: Path) -> None:
    """Files as the published translation models have them: one sentencepiece model per language, ids in JSON."""
    import json

    import sentencepiece
    from transformers import MarianTokenizer

    pieces: list[str] = []
    for name, texts in (("source", TEXTS), ("target", ["我们今天去北京看电影", "这部电影的故事很感人"])):
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 4), model_writer=written, vocab_size=40, hard_vocab_limit=False,
            minloglevel=2, num_threads=1,
        )  # fmt: skip
        (folder / f"{name}.spm").write_bytes(written.getvalue())
        model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
        pieces += [model.id_to_piece(i) for i in range(model.vocab_size())]
    names = dict.fromkeys(["</s>", "<unk>", *pieces, "<pad>"])
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    tokenizer = MarianTokenizer(*(str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")))
    tokenizer.save_pretrained(folder)


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_a_slow_tokenizer_serves_where_nobody_asks_for_characters(folders: dict[str, Path], tmp_path: Path) -> None:
    load(folders["marian"], "Seq2SeqLM").save_pretrained(tmp_path)
    marian_tokenizer(tmp_path)
    base = load_base(tmp_path, params(tmp_path))
    assert not base.tokenizer.is_fast
    target = base.tokenizer(text_target="我们看电影")["input_ids"]
    assert base.tokenizer.decode(target, skip_special_tokens=True) == "我们看电影"
    assert base.pad_id == base.tokenizer.convert_tokens_to_ids("<pad>")
    with pytest.raises(ModelError, match=r"a fast tokenizer \(tokenizer.json\), found a slow one"):
        load_base(tmp_path, params(tmp_path), needs_offsets=True)


def test_the_configuration_is_read_once(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    read, reads = AutoConfig.from_pretrained, []
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda *given, **more: reads.append(1) or read(*given, **more))
    base = load_base(folders["bert"], params(folders["bert"]))
    assert base.config.model_type == "bert"
    assert len(reads) == 1


def test_a_head_that_the_files_know_nothing_of_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"pretrained weights for AutoModelForQuestionAnswering, found \d+% of its"):
        load(folders["llama"], "QuestionAnswering")


def test_a_bare_body_still_gets_any_head(tmp_path: Path) -> None:
    folder = tiny_bert(tmp_path / "bert")
    for head in HEADS["encoder"]:
        assert load(folder, head).num_parameters() > 0
