"""What the text of `model.base` means: a local folder for it, and a cheap identity of its content."""

from __future__ import annotations

from pathlib import Path

from apf_tasks.artifacts import ScratchModel
from apf_tasks.cache import store
from apf_tasks.errors import MissingModelError, ModelError, StoreError
from apf_tasks.params.model import ModelParams, TokenizerParams
from apf_tasks.sources.data import PYPI, fingerprint, missing_path_error, package_path, parse_pypi
from apf_tasks.tracking.registry import REGISTRY

BUILT = "stages:build_base/"
"""What `build_base` made, followed by its key."""
GGUF = ".gguf"

NOT_WEIGHTS = frozenset({"training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scheduler.bin"})
LFS_POINTER = b"version https://git-lfs"


def model_folder(model: ModelParams) -> Path:
    """A local folder with configuration, tokenizer and weights. Downloads what is not here. Raises ModelError."""
    folder = _folder(model)
    _check_model_files(folder, model)
    return folder


def tokenizer_folder(tokenizer: TokenizerParams) -> Path:
    """A local folder with the tokenizer of `tokenizer.base`, downloaded with its model when it is not here."""
    return _folder(_as_model(tokenizer), "tokenizer.base")


def model_identity(model: ModelParams) -> str:
    """What tells this base model from any other, without a download."""
    return _identity(model, "model.base")


def tokenizer_identity(tokenizer: TokenizerParams) -> str:
    """What tells the tokenizer of `tokenizer.base` from any other, without a download."""
    return _identity(_as_model(tokenizer), "tokenizer.base")


def _as_model(tokenizer: TokenizerParams) -> ModelParams:
    return ModelParams(base=tokenizer.base or "", revision=tokenizer.revision, sha256=tokenizer.sha256)


def _folder(model: ModelParams, where: str = "model.base") -> Path:
    base, local = model.base, Path(model.base).expanduser()
    if base.startswith(BUILT):
        return _built(base).path / "model"
    if base.startswith(REGISTRY):
        from apf_tasks.tracking import registry

        return registry.download_model(base)
    if base.startswith(PYPI) or local.exists():
        found = package_path(base, model.sha256) if base.startswith(PYPI) else local
        if found.suffix == GGUF:
            from apf_tasks.sources._gguf import convert_gguf

            return convert_gguf(found)
        return found
    if _looks_like_path(base):
        raise missing_path_error(where, local, MissingModelError)
    from apf_tasks.sources.hub import download_model_files

    return download_model_files(model)


def _identity(model: ModelParams, where: str) -> str:
    base, local = model.base, Path(model.base).expanduser()
    if base.startswith(BUILT):
        return _built(base).fingerprint
    if base.startswith(REGISTRY):
        from apf_tasks.tracking import registry

        return registry.model_identity(base)
    if base.startswith(PYPI):
        return f"{model.sha256}/{parse_pypi(base).inside}"
    if local.exists():
        return fingerprint({"": local})
    if _looks_like_path(base):
        raise missing_path_error(where, local, MissingModelError)
    from apf_tasks.sources.hub import commit_of

    return f"{base}@{commit_of(base, model.revision, 'model')}"


def _built(base: str) -> ScratchModel:
    found = store.load("build_base", base.removeprefix(BUILT), ScratchModel)
    if found is None:
        do = "Run the experiment from scratch again: it builds what is not stored."
        raise StoreError(f"model {base}", "a stored result of build_base", "none of that key", do)
    return found


def _looks_like_path(base: str) -> bool:
    """Hub names are NAME or OWNER/NAME."""
    return base.startswith((".", "/", "~")) or base.count("/") > 1 or "\\" in base or base.endswith(GGUF)


def _check_model_files(folder: Path, model: ModelParams) -> None:
    where = f"model {model.base}"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    shown = ", ".join(names[:8]) or "no files"
    if "config.json" not in names:
        raise ModelError(where, "a folder with config.json", shown, "Name the folder that save_pretrained wrote.")
    safe = [folder / name for name in names if name.endswith(".safetensors")]
    pickled = [n for n in names if n.endswith((".bin", ".pt", ".pth")) and n not in NOT_WEIGHTS]
    if not safe and not pickled:
        do = "Name a folder with model.safetensors"
        do += (
            "."
            if model.allow_pickle
            else "; if only .bin weights exist and you trust them, set model.allow_pickle: true."
        )
        raise ModelError(where, "weights (*.safetensors)", shown, do)
    if not safe and not model.allow_pickle:
        do = "Unpickling runs code: convert them to safetensors, or set model.allow_pickle: true if you trust them."
        raise ModelError(where, "weights in safetensors", ", ".join(pickled), do)
    for path in safe:
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ModelError(where, "weights", f"a Git LFS pointer in {path.name}", "Run `git lfs pull` there.")
