"""A .gguf file as a model folder in float32: what is packed for running becomes something that can be trained."""

from __future__ import annotations

import logging
import os
import shutil
from hashlib import blake2b
from pathlib import Path

from apf_tasks.cache.code_digest import code_digests
from apf_tasks.errors import ModelError, SourceError, is_system_error
from apf_tasks.params.architectures import language_models
from apf_tasks.sources.package_index import cannot_write
from apf_tasks.user_cache import cache_folder

logger = logging.getLogger("apf")


def convert_gguf(file: Path) -> Path:
    """The model folder for a .gguf file: weights dequantised to float32, tokenizer, chat template.

    Made once, in the cache, and complete when it is there. Raises ModelError for a file that transformers cannot read,
    SourceError when the cache cannot be written.
    """
    target = cache_folder() / "converted" / _key(file)
    if target.is_dir():
        return target
    logger.info("           converting %s to float32, once", file.name)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        _convert(file, partial)
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():  # or another process was faster
                raise
    except OSError as error:
        raise cannot_write(error, f"converting {file.name}", target.parent) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _key(file: Path) -> str:
    """Tells this file, converted by this code, from others without reading it: it may be as large as the memory."""
    status = file.stat()
    named = f"{code_digests(['sources._gguf'])}\n{file.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
    return f"{file.stem}-{blake2b(named.encode(), digest_size=8).hexdigest()}"


def _convert(file: Path, folder: Path) -> None:
    """Load through transformers, and copy into a model that was never quantised and does not say so."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where = f"model {file}"
    try:
        config = transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        auto_class = getattr(transformers, language_models()[config.model_type])
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        packed = auto_class.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except Exception as error:  # whatever a damaged file, or one of an unknown kind, makes the readers raise
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        do = "Name a folder with config.json and safetensors instead."
        kind = SourceError if is_system_error(error) else ModelError
        raise kind(where, "a .gguf file that transformers reads", found, do) from error
    plain = type(config).from_dict({k: v for k, v in packed.config.to_dict().items() if k != "quantization_config"})
    fresh = auto_class.from_config(plain, dtype=torch.float32)
    fresh.load_state_dict(packed.state_dict())
    if tokenizer.eos_token_id is None:
        do = "Use another file of this model; without that token, training cannot teach it to stop."
        raise ModelError(where, "a token that ends a text", "none in its tokenizer", do)
    fresh.generation_config = packed.generation_config
    fresh.generation_config.eos_token_id = fresh.config.eos_token_id = tokenizer.eos_token_id
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
