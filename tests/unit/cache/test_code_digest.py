"""What in the code makes a stage run again, and what does not."""

from __future__ import annotations

import ast
import functools
import gc
import importlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from packaging.utils import canonicalize_name
from pydantic import BaseModel

from apf_tasks import stages
from apf_tasks.cache import code_digest
from apf_tasks.cache._code_syntax import Code, Reference
from apf_tasks.cache.code_digest import FOLLOWED_BY_DEFINITION, VALUES, WITHOUT_INFLUENCE, code_digests, followed
from apf_tasks.cache.stage import Stage
from apf_tasks.params.family import FamilyParams, family_names
from apf_tasks.params.model import ModelParams
from apf_tasks.word_vectors import stages as word_vector_stages

STAGES: dict[str, Stage[..., Any]] = {
    name: found
    for module in (stages, word_vector_stages)
    for name, found in vars(module).items()
    if isinstance(found, Stage)
}
TRAINED = "train_model train_rung"
USERS = f"tokenize {TRAINED} evaluate"
SOURCES = "ingest read_corpus"
BASELINES = "families.classification.baselines"
FINGERPRINTS = "cache/fingerprints.py"
OPTIMIZERS = "training/optim/from_params.py"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package's source to edit."""
    copy = tmp_path / "apf_tasks"
    shutil.copytree(code_digest.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "PACKAGE", copy)
    return copy


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_comment_and_a_docstring_do_not_count(package: Path) -> None:
    before = code_digests(["training.optim.schedules"])
    edit(package / "training/optim/schedules.py", "warmup = round", "# rounded to the nearest step\n    warmup = round")
    edit(package / "training/optim/schedules.py", '"""The peak, to the end."""', '"""Always the peak."""')
    assert code_digests(["training.optim.schedules"]) == before


def test_an_expression_counts(package: Path) -> None:
    before = code_digests(["training.optim.schedules"])
    edit(package / "training/optim/schedules.py", "(step + 1) / warmup", "(step + 2) / warmup")
    assert code_digests(["training.optim.schedules"]) != before


def test_a_module_that_has_moved_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="unpacking"):
        code_digests(["unpacking"])


def test_imports_are_followed_and_reporting_is_not(package: Path) -> None:
    modules = code_digests(["training.train"], "sentiment").keys()
    assert {
        "apf_tasks.training.train",
        "apf_tasks.training.loop",
        "apf_tasks.training.optim.schedules",
        "apf_tasks.families.classification.family",
    } <= modules
    assert not {"apf_tasks.tracking.run_logger", "apf_tasks.runtime.progress", "apf_tasks.errors"} & modules
    before = code_digests(["training.train"], "sentiment")
    edit(package / "runtime/progress.py", "LINE_SECONDS = 10", "LINE_SECONDS = 20")
    assert code_digests(["training.train"], "sentiment") == before
    edit(package / "training/optim/schedules.py", "return 1 - progress", "return 1 - progress / 2")
    assert code_digests(["training.train"], "sentiment") != before


def test_another_family_does_not_count(package: Path) -> None:
    before = code_digests(["training.train"], "sentiment")
    (package / "families" / "toy.py").write_text("X = 1\n")
    assert code_digests(["training.train"], "sentiment") == before


def test_all_that_a_family_uses_counts_and_its_baselines_only_where_they_are_compared(package: Path) -> None:
    def digests() -> list[dict[str, str]]:
        stages = (["data.ingestion"], ["training.train"], ["evaluation.evaluate", BASELINES])
        return [code_digests(modules, family) for family in ("ner", "sentiment") for modules in stages]

    before = digests()
    edit(package / "words.py", "UNSPACED_SHARE = 0.2", "UNSPACED_SHARE = 0.3")  # how ner cuts a text into words
    changed = [a != b for a, b in zip(before, digests(), strict=True)]
    assert changed == [True, True, True, False, False, True]
    before = digests()
    edit(package / "evaluation/metrics/entities.py", 'OUTSIDE = "O"', 'OUTSIDE = "o"')
    assert [a != b for a, b in zip(before, digests(), strict=True)] == [True, True, True, False, False, False]
    before = digests()
    edit(package / "families/classification/baselines.py", "ngram_range=(1, 2)", "ngram_range=(1, 3)")
    assert [a != b for a, b in zip(before, digests(), strict=True)] == [False, False, True, False, False, True]


def test_what_is_imported_for_types_only_does_not_count(package: Path) -> None:
    before = code_digests(["data.ingestion"], "sentiment")
    edit(package / "families/classification/family.py", "if TYPE_CHECKING:", "if TYPE_CHECKING:\n    import decimal")
    assert code_digests(["data.ingestion"], "sentiment") == before


def test_another_thread_that_parses_spoils_nothing(package: Path) -> None:
    expected = code_digests(["training.train", "evaluation.evaluate"])
    done = threading.Event()

    def parse(depth: int = 20) -> None:
        if depth:
            return parse(depth - 1)
        text = (package / "tracking/run_logger.py").read_text()
        while not done.is_set():
            with suppress(SystemError):
                ast.parse(text)

    def give_way(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    thread = threading.Thread(target=parse)
    gc.callbacks.append(give_way)
    thread.start()
    try:
        for _ in range(3):
            code_digest._remembered.clear()
            code_digest._parse.cache_clear()
            assert code_digests(["training.train", "evaluation.evaluate"]) == expected
    finally:
        done.set()
        thread.join()
        gc.callbacks.remove(give_way)


def takes(stage: Stage[..., Any]) -> list[type]:
    """The classes of a stage's arguments and result; of a bundle also those of its fields."""
    hints = [*get_type_hints(stage.function).values()]
    for bundle in [hint for hint in hints if hasattr(hint, "_fields")]:
        hints += get_type_hints(bundle).values()
    return [kind for hint in hints for kind in (hint, *get_args(hint)) if isinstance(kind, type)]


def families_of(stage: Stage[..., Any]) -> list[str | None]:
    return [*family_names()] if FamilyParams in takes(stage) else [None]


def keys() -> dict[str, dict[str, str]]:
    """Stage -> digests of its code."""
    return {
        name: code_digests(stage.code, "sentiment" if FamilyParams in takes(stage) else None)
        for name, stage in STAGES.items()
    }


def changed(package: Path, file: str, old: str, new: str) -> set[str]:
    """The stages whose code is another one after an edit."""
    before = keys()
    edit(package / file, old, new)
    return {name for name, digests in keys().items() if digests != before[name]}


@functools.cache
def everything() -> dict[tuple[str, str | None], dict[Reference, Code]]:
    """(stage, family) -> all that its code is followed to."""
    return {(n, family): followed(s.code, family) for n, s in STAGES.items() for family in families_of(s)}


@pytest.mark.parametrize(
    ("file", "old", "new", "run", "stay"),
    [
        ("family.py", "[piece[0] for", "[piece[-1] for", USERS, "take_rows read_corpus"),
        ("family.py", '"token_type_ids", ', "", f"{USERS} contend", "take_rows"),
        ("family.py", "[[str(label)] for", "[[label] for", "split_rows contend", USERS),
        ("examples.py", "IGNORE_INDEX = -100", "IGNORE_INDEX = -1", f"{USERS} take_rows", "read_corpus"),
        ("sources/data.py", "path.parts[-depth:]", "path.parts[-depth - 1:]", SOURCES, USERS),
        ("sources/data.py", 'startswith((".", "_"))', 'startswith(".")', SOURCES, USERS),
        ("sources/data.py", 'digest(identities)', 'digest([identities])', "", f"{SOURCES} {USERS}"),
        ("sources/_gguf.py", "(plain, dtype=torch.float32)", "(plain)", f"{USERS} build_base", "ingest register"),
        ("sources/archives.py", "(exact[-1], \"\")", "(exact[0], \"\")", f"{SOURCES} {USERS}", "split_rows select"),
        ("sources/archives.py", "place = to / _key(archive, inside)", "place = to", SOURCES, "split_rows"),
        ("sources/hub.py", '"*.jinja", ', "", USERS, f"{SOURCES} select"),
        ("sources/models.py", "return found\n    if _looks", "return found.parent\n    if _looks", USERS, "ingest"),
        (FINGERPRINTS, "digest_size=DIGEST_BYTES)\n    with", "digest_size=8)\n    with", "ingest register", ""),
        (FINGERPRINTS, "{name: file_digest(path)", "{path.name: file_digest(path)", "ingest register", ""),
        (FINGERPRINTS, "json.dumps(value, sort_keys=True", "json.dumps(value", "select train_rung", ""),
        ("stages.py", "train_model(out, trial)", "train_model(out, trial, 1)", TRAINED, "evaluate ingest"),
        ("params/train.py", "self.devices * self.nodes", "self.devices", TRAINED, "ingest split_rows"),
        (OPTIMIZERS, "betas = (options.beta1", "betas = (options.beta2", TRAINED, "evaluate select register"),
        (OPTIMIZERS, "p.dim() >= 2]", "p.dim() >= 1]", TRAINED, "evaluate select register"),
        ("artifacts.py", "padding_free: bool = False", "padding_free: bool = True", TRAINED, "ingest tokenize"),
        ("artifacts.py", "} truncated at", "} cut at", "register_vectors", f"{USERS} register"),
        ("params/data.py", "leave nothing to train on", "are too much", "", f"{USERS} split_rows"),
        ("errors.py", "class ModelError", "# a comment\nclass ModelError", "", " ".join(STAGES)),
        ("errors.py", "}: expected ", "}: wanted ", "", " ".join(STAGES)),
        ("sources/hub.py", "TIMEOUT_SECONDS = 10", "TIMEOUT_SECONDS = 11", "", " ".join(STAGES)),
        ("runtime/progress.py", "LINE_SECONDS = 10", "LINE_SECONDS = 20", "", " ".join(STAGES)),
        ("stages.py", "resumable=True", "resumable=False", "", " ".join(STAGES)),
    ],
)  # fmt: skip
def test_what_decides_a_result_is_in_its_key(package: Path, file: str, old: str, new: str, run: str, stay: str) -> None:
    found = changed(package, file, old, new)
    assert set(run.split()) <= found
    assert not set(stay.split()) & found


def test_methods_and_properties_of_values_count_where_they_are_asked_for(package: Path) -> None:
    edit(package / "params/train.py", "    @model_validator", "    @property\n    def peak(self) -> float:\n"
         "        return 1.0\n\n    @model_validator")  # fmt: skip
    assert changed(package, "params/train.py", "return 1.0", "return 2.0") == set()
    edit(package / "training/state.py", "seed_everything(params.seed)", "seed_everything(int(params.peak))")
    assert changed(package, "params/train.py", "return 2.0", "return 3.0") == {*TRAINED.split()}


def test_a_name_from_elsewhere_is_followed_to_its_definition(package: Path) -> None:
    (package / "shown").mkdir()
    (package / "shown" / "__init__.py").write_text(
        "from apf_tasks.cache.fingerprints import fingerprint_files as fingerprint\n"
    )
    edit(
        package / "data/subset.py",
        "from apf_tasks.data.rows",
        "from apf_tasks.shown import fingerprint\nfrom apf_tasks.data.rows",
    )
    (package / "more").mkdir()
    (package / "more" / "__init__.py").write_text("from ..shown import fingerprint\n")
    edit(
        package / "evaluation/selection.py",
        "from apf_tasks.data.rows",
        "from apf_tasks import more\nfrom apf_tasks.data.rows",
    )
    edit(
        package / "evaluation/selection.py",
        "def select(",
        "def more_of(a, b):\n    return more.fingerprint(a, b)\n\n\ndef select(",
    )
    edit(package / "data/subset.py", "fingerprint_files(", "fingerprint(")
    edit(package / "data/subset.py", ", fingerprint_files", "")
    found = changed(package, "cache/fingerprints.py", "sorted((folder / n).rglob", "reversed((folder / n).rglob")
    assert {"take_rows", "select"} <= found


@pytest.mark.parametrize(
    "statement", ["import apf_tasks.cache.store", "from apf_tasks.cache.store import *", "from ...cache import store"]
)
def test_no_way_to_import_hides_a_definition(package: Path, statement: str) -> None:
    edit(package / "training/optim/schedules.py", "import math", f"{statement}\nimport math")
    edit(package / "training/optim/schedules.py", "warmup = round", "print(store)\n    warmup = round")
    assert changed(package, "cache/fingerprints.py", "file.read(1 << 22)", "file.read(1 << 21)") >= {*TRAINED.split()}
    assert changed(package, "cache/store.py", "FULL = (errno.ENOSPC", "FULL = (errno.EPERM") >= {*TRAINED.split()}


def test_every_name_without_influence_is_there_and_taken() -> None:
    """A name of the table that nothing takes would wait for something else of that name."""
    uses = {use for found in everything().values() for code in found.values() for use in code.uses}
    taken = {(module, name.removesuffix("()")) for module, name in uses}
    known = {(module, name) for module, names in WITHOUT_INFLUENCE.items() for name in names}
    methods = {(module, name) for module, name in known if "." in name}
    assert known - methods <= taken
    for module, name in known:
        owner: Any = importlib.import_module(module)
        for part in name.split("."):
            owner = getattr(owner, part)


def test_modules_that_count_by_definitions_are_never_taken_whole() -> None:
    """Something unknown in them (a name made at run time, say) would be followed whole, and count too much."""
    whole = {(module, n) for (n, _), found in everything().items() for module, name in found if name == "*"}
    assert not {(module, stage) for module, stage in whole if module in FOLLOWED_BY_DEFINITION}


@pytest.mark.parametrize(
    "module",
    ["errors", "sources.package_index", "runtime.progress", "cache.stage", "tracking.tracker", "tracking.run_logger"],
)
def test_what_is_taken_from_reporting_modules_is_decided(module: str) -> None:
    """A new name counts until WITHOUT_INFLUENCE has it: put it there, or what decides a result elsewhere."""
    reporting = f"apf_tasks.{module}"
    assert not {name for found in everything().values() for m, name in found if m == reporting}


def classes_within(kind: Any) -> Iterator[type[BaseModel]]:
    for inner in get_args(kind):
        yield from classes_within(inner)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from classes_within(field.annotation)


def test_all_that_stages_take_and_give_are_values() -> None:
    kinds = {k for stage in STAGES.values() for hint in takes(stage) for k in classes_within(hint)}
    assert {kind.__module__ for kind in kinds} <= VALUES
    hooks = {(kind.__name__, name) for kind in kinds for name in vars(kind) if name in HOOKS_OF_VALUES}
    assert not hooks, "python calls them without their name"


HOOKS_OF_VALUES = {"__eq__", "__iter__", "__len__", "__contains__", "__getattr__", "__str__", "__bool__"}


def test_all_fields_of_a_model_are_in_keys() -> None:
    """So what `as_model_params` makes of a built model decides the key by itself."""
    built = stages.ScratchModel.model_construct(path=Path("stages/build_base/0123"), fingerprint="f")
    made = stages.as_model_params(built, ModelParams(init="scratch", architecture="bert"))
    inputs = importlib.import_module("apf_tasks.cache.stage")._inputs({"model": made})
    assert inputs.keys() >= {f"model.{name}" for name in ModelParams.model_fields if name != "sizes"}
    assert (inputs["model.base"], inputs["model.init"]) == ("stages:build_base/0123", "pretrained")
    assert "model.sizes" in inputs


NOT_IN_KEYS: Mapping[str, str] = {
    "huggingface-hub": "fetches what is identified in the key",
    "mlflow-skinny": "a part of mlflow",
    "mlflow-tracing": "a part of mlflow",
    "psutil": "says what the machine has",
    "pydantic": "its values are inputs of keys",
    "matplotlib": "draws; where a picture is the result it is in the key",
}
"""Distribution -> why no key has to name it."""
NOT_RUN: Mapping[str, str] = {
    "ingest": "torch transformers jinja2 scikit-learn scipy sacrebleu rouge-score nltk safetensors",
    "split_rows": "torch transformers jinja2 jieba scikit-learn sacrebleu rouge-score nltk safetensors",
    "build_base": "jieba numpy scikit-learn scipy sacrebleu rouge-score nltk safetensors",
    "tokenize": "torch scikit-learn scipy sacrebleu rouge-score nltk safetensors",
    "select": "torch transformers jinja2 safetensors",
    "learning_curve": "torch transformers jinja2 safetensors",
    "register": "scikit-learn scipy sacrebleu rouge-score nltk safetensors",
    "measure_drift": "sacrebleu rouge-score nltk",
    "train_vectors": "charset-normalizer datasets polib pyarrow pandas",
    "probe_vectors": "charset-normalizer datasets polib pyarrow pandas",
    "register_vectors": "jieba",
}
"""Stage -> distributions that only functions import which it does not call: `ingest` makes no model and no scores, but
its family's module has both."""


@pytest.mark.parametrize("stage", STAGES)
def test_keys_name_the_libraries_that_code_imports(stage: str) -> None:
    distributions = packages_distributions()
    optional = {"torchao": ["torchao"]}  # not installed everywhere
    imported = {
        canonicalize_name(name)
        for (found_in, _), found in everything().items()
        for code in found.values()
        for top in code.libraries
        if found_in == stage and top not in sys.stdlib_module_names
        for name in optional.get(top) or distributions[top]
    }
    excepted = set(NOT_RUN.get(stage, "").split())
    assert imported - set(STAGES[stage].libraries) - NOT_IN_KEYS.keys() == excepted


def test_a_library_that_is_not_installed_is_in_the_key_as_that() -> None:
    from apf_tasks.cache.environment import installed_version

    assert installed_version("no-such-distribution") == "not installed"
