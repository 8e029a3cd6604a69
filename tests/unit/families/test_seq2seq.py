"""Text in, text out: what is learned, what is cut, and that writing is greedy, stops, and wastes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from apf_tasks.data.batching import collate
from apf_tasks.errors import ModelError, ParamsError
from apf_tasks.examples import IGNORE_INDEX, Columns
from apf_tasks.families._language_model.head import head_of
from apf_tasks.families._text_to_text.generation import decode, generate
from apf_tasks.families._text_to_text.seq2seq import encode, end_tokens, load_model, loss, prompt_tokens, set_languages
from apf_tasks.families.translation import TranslationParams
from apf_tasks.models.pretrained import BaseModelInfo, load_base
from apf_tasks.params.model import ModelParams
from apf_tasks.training.weights import check_all_parameters_changed, parameter_digests
from tests.support.tiny import DECODERS, ENCODER_DECODERS, tiny_bert, tiny_model

CPU = torch.device("cpu")
PAIRS = [("the red cat", "die rote katze"), ("a dog", "ein hund"), ("two birds sing", "zwei voegel singen")]
SOURCES, TARGETS = [source for source, _ in PAIRS], [target for _, target in PAIRS]
WRITERS = (*DECODERS, *ENCODER_DECODERS, "m2m_100", "pegasus")


def params(**options: Any) -> TranslationParams:
    return TranslationParams.model_validate(
        {"name": "translation", "target_language": "de", "prompt": "{source}", "max_new_tokens": 16} | options
    )


def folder_of(tmp_path: Path, architecture: str, max_tokens: int = 48) -> Path:
    return tiny_model(tmp_path / architecture, architecture, [*SOURCES, *TARGETS], max_tokens=max_tokens)


def base_of(folder: Path, max_tokens: int = 48) -> BaseModelInfo:
    return load_base(folder, ModelParams(base=str(folder), max_tokens=max_tokens))


def model_of(folder: Path) -> Any:
    return load_model(folder, ModelParams(base=str(folder)), ()).eval()


def batch_of(columns: Columns, base: BaseModelInfo) -> dict[str, torch.Tensor]:
    return collate({name: values for name, values in columns.items() if name != "truncated"}, base.pad_id, CPU)


# What is learned


def test_a_decoder_learns_the_output_and_its_end_alone(tmp_path: Path) -> None:
    base = base_of(folder_of(tmp_path, "gpt2"))
    base.tokenizer.pad_token = base.tokenizer.eos_token  # as most published decoders are used
    columns = encode(SOURCES, TARGETS, base, params(prompt="say {source} now:"))
    end = base.tokenizer.eos_token_id
    for i, (source, target) in enumerate(PAIRS):
        ids, labels, (length,) = (columns[name][i] for name in ("input_ids", "labels", "prompt"))
        assert base.tokenizer.decode(ids[:length]) == f"say {source} now:"
        assert labels[:length] == [IGNORE_INDEX] * length
        assert labels[length:] == ids[length:]
        assert ids[-1] == end
        assert base.tokenizer.decode(ids[length:-1]) == target
    padded = batch_of(columns, base)["labels"]
    assert [int((row == end).sum()) for row in padded] == [1, 1, 1]  # padding is no end, though it has the same id
    assert columns["truncated"] == [False] * 3


@pytest.mark.parametrize("architecture", ENCODER_DECODERS)
def test_an_encoder_decoder_learns_the_output_and_its_end(tmp_path: Path, architecture: str) -> None:
    base = base_of(folder_of(tmp_path, architecture))
    columns = encode(SOURCES, TARGETS, base, params(prompt="to German: {source}"))
    end = base.tokenizer.eos_token_id
    for ids, labels, target in zip(columns["input_ids"], columns["labels"], TARGETS, strict=True):
        assert ids[-1] == labels[-1] == end
        assert labels.count(end) == 1
        assert decode(base.tokenizer, [labels[:-1]]) == [target]
    short = encode(SOURCES, TARGETS, base, params(max_new_tokens=3))
    assert [(len(labels), labels[-1]) for labels in short["labels"]] == [(3, end)] * 3
    assert short["truncated"] == [True] * 3


def test_an_output_without_an_end_gets_one(tmp_path: Path) -> None:
    base = base_of(tiny_bert(tmp_path / "bert", [*SOURCES, *TARGETS]))
    base.tokenizer.eos_token = "[UNK]"  # one that the tokenizer does not write itself
    base.config.is_encoder_decoder = True
    columns = encode(SOURCES[:1], TARGETS[:1], base, params())
    written = base.tokenizer(TARGETS[0])["input_ids"]
    assert columns["labels"][0] == [*written, base.tokenizer.unk_token_id]
    cut = encode(SOURCES[:1], TARGETS[:1], base, params(max_new_tokens=3))
    assert len(cut["labels"][0]) == 3
    assert cut["labels"][0][-1] == base.tokenizer.unk_token_id


def test_what_is_too_long_loses_input_and_never_the_end(tmp_path: Path) -> None:
    base = base_of(folder_of(tmp_path, "gpt2"), max_tokens=30)
    long = "the red cat and a dog and two birds sing " * 3
    wordings = params(prompt="A {source} B", max_new_tokens=12)
    columns = encode([long, SOURCES[0]], [TARGETS[0], long], base, wordings)
    (first, second), end = columns["input_ids"], base.tokenizer.eos_token_id
    before, after = prompt_tokens(base.tokenizer, wordings)
    assert columns["truncated"] == [True, True]
    assert columns["prompt"][0] == [30 - 12]
    assert first[:18][-len(after) :] == after
    assert first[: len(before)] == before
    assert base.tokenizer.decode(first[18:-1]) == TARGETS[0]
    assert first[-1] == second[-1] == end
    assert len(second) - columns["prompt"][1][0] == 12
    # an output that is one token too long, and one that just fits
    tokens = base.tokenizer(long, add_special_tokens=False)["input_ids"]
    outputs = [base.tokenizer.decode(tokens[:count]) for count in (11, 12)]
    assert encode(SOURCES[:2], outputs, base, wordings)["truncated"] == [False, True]


def test_a_prompt_does_not_tell_how_long_the_output_is(tmp_path: Path) -> None:
    base = base_of(folder_of(tmp_path, "gpt2"), max_tokens=30)
    long = ["the red cat and a dog and two birds sing " * 3] * 3
    known, served = (encode(long, outputs, base, params(max_new_tokens=12)) for outputs in (TARGETS, None))
    lengths = [length for (length,) in known["prompt"]]
    assert [ids[:n] for ids, n in zip(known["input_ids"], lengths, strict=True)] == served["input_ids"]
    assert served["prompt"] == known["prompt"]


def test_no_room_for_an_input_is_an_error(tmp_path: Path) -> None:
    base = base_of(folder_of(tmp_path, "gpt2"), max_tokens=16)
    with pytest.raises(ParamsError, match=r"room for input besides 0 of the prompt and 12 of the output.*20 or more"):
        encode(SOURCES, TARGETS, base, params(max_new_tokens=12))
    apart = base_of(folder_of(tmp_path, "bart"))
    with pytest.raises(ParamsError, match=r"family\.max_new_tokens.*at most \d+, the positions"):
        encode(SOURCES, TARGETS, apart, params(max_new_tokens=2000))
    with pytest.raises(ParamsError, match=r"text before the input only.*' now'.*End it with \{source\}"):
        encode(SOURCES, TARGETS, apart, params(prompt="say {source} now"))


def test_a_prompt_needs_its_slot_once() -> None:
    with pytest.raises(ValueError, match=r"expected \{source\} in it, once"):
        params(prompt="{document}")


# Chat templates


CHAT = (
    "{{ date_string }}{% for m in messages %}<u>{{ m['content'] | trim }}</u>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% if enable_thinking %}think{% endif %}{% endif %}"
)


def test_a_chat_template_surrounds_the_prompt(tmp_path: Path) -> None:
    base = base_of(folder_of(tmp_path, "llama", max_tokens=96), max_tokens=96)
    base.tokenizer.chat_template = CHAT
    asked = encode([" a dog "], None, base, params(prompt="say\n{source}\n"))["input_ids"][0]
    # the same on any day, without thinking aloud, and the input as it is
    assert base.tokenizer.decode(asked) == "26 Jul 2024<u>say\n a dog </u><a>"
    plain = encode([" a dog "], None, base, params(prompt="say\n{source}\n", chat="never"))["input_ids"][0]
    assert base.tokenizer.decode(plain) == "say\n a dog \n"


def test_a_chat_template_that_drops_the_input_is_an_error(tmp_path: Path) -> None:
    base = base_of(folder_of(tmp_path, "gpt2"))
    base.tokenizer.chat_template = "hello"
    with pytest.raises(ModelError, match=r"the user's words, once.*'hello'.*family\.chat: never"):
        encode(SOURCES, TARGETS, base, params())


# Loss


@pytest.mark.parametrize("architecture", WRITERS)
def test_the_loss_is_the_models_own_times_the_targets(tmp_path: Path, architecture: str) -> None:
    folder = folder_of(tmp_path, architecture)
    base, model = base_of(folder), model_of(folder)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    assert head_of(model) is not None
    batch = batch_of(encode(SOURCES, TARGETS, base, params(prompt="x {source}")), base)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    expected = model(**inputs).loss * (batch["labels"] != IGNORE_INDEX).sum()
    torch.testing.assert_close(loss(model, batch), expected, rtol=1e-5, atol=1e-4)


# Models


def test_a_model_that_cannot_write_is_refused(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "bert", "bert")
    with pytest.raises(ModelError, match=r"a model that generates text.*a bert.*GPT-2, Llama, Qwen"):
        model_of(folder)


def test_a_t5_saved_in_half_precision_is_loaded_in_single(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "t5")
    model_of(folder).half().save_pretrained(folder)
    assert {p.dtype for p in model_of(folder).parameters()} == {torch.float32}


def two_berts(folder: Path) -> Path:
    """An encoder-decoder made of two BERTs, with poolers, as `from_encoder_decoder_pretrained` makes it."""
    from transformers import AutoTokenizer, EncoderDecoderModel

    bert = str(tiny_bert(folder / "bert", [*SOURCES, *TARGETS]))
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(bert, bert)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    model.config.decoder_start_token_id = tokenizer.cls_token_id
    model.config.pad_token_id, model.config.eos_token_id = tokenizer.pad_token_id, tokenizer.sep_token_id
    model.save_pretrained(folder / "both")
    tokenizer.save_pretrained(folder / "both")
    return folder / "both"


@pytest.mark.parametrize("architecture", [*WRITERS, "two berts"])
def test_every_parameter_learns_and_what_is_saved_writes_the_same(tmp_path: Path, architecture: str) -> None:
    folder = two_berts(tmp_path) if architecture == "two berts" else folder_of(tmp_path, architecture)
    base, model = base_of(folder), model_of(folder)
    model.requires_grad_(True)
    batch = batch_of(encode(SOURCES, TARGETS, base, params()), base)
    before, optimizer = parameter_digests(model), torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        (loss(model, batch) / 3).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert check_all_parameters_changed(model, before) == model.num_parameters()
    model.save_pretrained(tmp_path / "trained")
    base.tokenizer.save_pretrained(tmp_path / "trained")
    again = model_of(tmp_path / "trained")
    assert loss(again, batch).item() == pytest.approx(loss(model, batch).item(), rel=1e-5)
    assert generate(again, batch, base, (), params()) == generate(model, batch, base, (), params())


# Writing


def trained(folder: Path, sources: list[str], targets: list[str], steps: int, **options: Any) -> Any:
    """A model that has seen these pairs so often."""
    base, model = base_of(folder), model_of(folder)
    batch = batch_of(encode(sources, targets, base, params(**options)), base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        (loss(model, batch) / len(sources)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


LONGER = [" ".join([SOURCES[i % 3]] * (1 + i // 3)) for i in range(12)]
GROWING = [" ".join([TARGETS[i % 3]] * (1 + i // 3)) for i in range(12)]


@pytest.mark.parametrize("architecture", WRITERS)
def test_rows_together_are_written_as_each_alone(tmp_path: Path, architecture: str) -> None:
    folder = folder_of(tmp_path, architecture, max_tokens=96)
    base, model = base_of(folder, max_tokens=96), trained(folder, LONGER, GROWING, 80)
    columns, sizes = encode(LONGER, GROWING, base, params()), []
    model.register_forward_hook(lambda module, args, out: sizes.append(len(out.logits)))
    with torch.inference_mode():
        together = generate(model, batch_of(columns, base), base, (), params())
    assert len({answer["prediction"] for answer in together}) > 1
    assert sizes[0] == 12
    assert sizes == sorted(sizes, reverse=True)
    if architecture != "t5":  # so small a T5 need not learn to stop at different places
        assert sizes[-1] < 12  # rows that have ended are no longer computed
    for i in range(12):
        row = {name: values[i : i + 1] for name, values in columns.items()}
        ids = batch_of(row, base)["input_ids"]
        ids = ids if base.is_encoder_decoder else ids[:, : row["prompt"][0][0]]
        settings = {"do_sample": False, "max_new_tokens": 16, "pad_token_id": base.pad_id}
        with torch.inference_mode():
            own = model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=end_tokens(base), **settings)
        written = own[0, 1 if base.is_encoder_decoder else ids.shape[1] :].tolist()
        finished = written[-1] in end_tokens(base)
        text = decode(base.tokenizer, [written[: len(written) - finished]])[0]
        assert together[i] == {"prediction": text, "finished": finished}


@torch.inference_mode()
def test_what_a_base_was_published_with_does_not_change_the_outputs(tmp_path: Path) -> None:
    from transformers import GenerationConfig

    for architecture in ("gpt2", "bart"):
        folder = folder_of(tmp_path, architecture)
        base = base_of(folder)
        batch = batch_of(encode(SOURCES, TARGETS, base, params()), base)
        expected = generate(model_of(folder), batch, base, (), params())
        (folder / "generation_config.json").unlink()
        GenerationConfig(
            do_sample=True, temperature=5.0, num_beams=3, repetition_penalty=9.0, min_new_tokens=5,
            no_repeat_ngram_size=1, max_length=2, bad_words_ids=[[9]], eos_token_id=3,
        ).save_pretrained(folder)  # fmt: skip
        assert generate(model_of(folder), batch, base, (), params()) == expected


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_beams_find_what_is_at_least_as_probable(tmp_path: Path, architecture: str) -> None:
    folder = folder_of(tmp_path, architecture, max_tokens=96)
    base, model = base_of(folder, max_tokens=96), trained(folder, LONGER, GROWING, 12)
    batch = batch_of(encode(LONGER, None, base, params()), base)

    def surprise(**options: Any) -> float:
        """Summed over all outputs, as the model sees them."""
        with torch.inference_mode():
            texts = [answer["prediction"] for answer in generate(model, batch, base, (), params(**options))]
            return float(loss(model, batch_of(encode(LONGER, texts, base, params()), base)))

    assert surprise(num_beams=6, length_penalty=0.0) < surprise()


@pytest.mark.parametrize("architecture", WRITERS)
def test_a_model_learns_what_to_write_and_to_stop(tmp_path: Path, architecture: str) -> None:
    folder = folder_of(tmp_path, architecture)
    base, model = base_of(folder), trained(folder, SOURCES, TARGETS, 80)
    with torch.inference_mode():
        found = generate(
            model, batch_of(encode(SOURCES, None, base, params()), base), base, (), params(max_new_tokens=20)
        )
    assert found == [{"prediction": target, "finished": True} for target in TARGETS]


def test_many_rows_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path, "t5")
    base, model = base_of(folder), trained(folder, SOURCES, TARGETS, 5)
    batch = batch_of(encode(SOURCES, None, base, params()), base)
    with torch.inference_mode():
        whole = generate(model, batch, base, (), params())
        monkeypatch.setattr("apf_tasks.families._text_to_text.generation.TOKENS_AT_ONCE", 1)
        assert generate(model, batch, base, (), params()) == whole


def test_chinese_comes_without_blanks_between_characters(tmp_path: Path) -> None:
    text = "下载 Linux 内核，2024 年。"
    for kind in ("wordpiece", "bpe", "unigram"):
        folder = tiny_model(tmp_path / kind, "t5", [text * 3], tokenizer=kind, vocab_size=300)
        tokenizer = base_of(folder).tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        (found,) = decode(tokenizer, [ids])
        assert "下载" in found
        assert "内核，" in found
        assert "年。" in found
    assert decode(base_of(tmp_path / "bpe").tokenizer, [base_of(tmp_path / "bpe").tokenizer("甲 乙")["input_ids"]]) == [
        "甲 乙"
    ]


# Language tokens


def multilingual(kind: str) -> Any:
    """A tokenizer that knows a few words and, as this model does, all of its languages."""
    import transformers

    words = {w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", "▁", "▁a", "a", "d", "o", "g", "<mask>"])}
    vocab: Any = words if kind == "Nllb" else [(w, -1.0) for w in words]
    return getattr(transformers, f"{kind}Tokenizer")(vocab=vocab)


@pytest.mark.parametrize(
    ("kind", "codes", "names", "how"),
    [
        ("MBart50", ("en", "zh"), ("en_XX", "zh_CN"), "forced_bos_token_id"),
        ("MBart", ("en_XX", "zh_CN"), ("en_XX", "zh_CN"), "decoder_start_token_id"),
        ("Nllb", ("eng_Latn", "zho_Hans"), ("eng_Latn", "zho_Hans"), "forced_bos_token_id"),
    ],
)
def test_language_tokens(kind: str, codes: tuple[str, str], names: tuple[str, str], how: str) -> None:
    from transformers import MBartConfig

    base = BaseModelInfo(multilingual(kind), MBartConfig(), 32)
    source, target = (base.tokenizer.convert_tokens_to_ids(name) for name in names)
    assert set_languages(base, codes) == {how: target}
    columns = encode(["dog"], ["a dog"], base, params(source_language=codes[0], target_language=codes[1]))
    assert source in columns["input_ids"][0]
    assert target in columns["labels"][0]
    assert base.tokenizer.eos_token_id in columns["labels"][0]
    assert columns["labels"][0].count(base.tokenizer.eos_token_id) == 1
    with pytest.raises(ModelError, match=r"language 'tlh'.*source_language and family\.target_language as this model"):
        set_languages(base, ("tlh", codes[1]))


def test_models_without_language_tokens_are_left_alone(tmp_path: Path) -> None:
    assert set_languages(base_of(folder_of(tmp_path, "t5")), ("en", "de")) == {}
