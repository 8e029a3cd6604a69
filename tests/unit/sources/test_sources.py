"""What the text of a source means, which files it leads to, and its identity. No network."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from apf_tasks.errors import DataError, ModelError, SourceError
from apf_tasks.params.data import DataParams
from apf_tasks.params.model import ModelParams
from apf_tasks.sources import hub
from apf_tasks.sources.data import data_files, data_identity, parse_pypi
from apf_tasks.sources.models import model_folder, model_identity

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub that refuses connections, and an empty hub cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def cached_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A wheel in the download cache; its digest."""
    monkeypatch.setenv("APF_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "p-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("p/model/config.json", "p/model/model.safetensors", "p/rows/b.csv", "p/rows/a.csv"):
            archive.writestr(name, "{}")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    folder = tmp_path / "cache" / "packages" / digest
    folder.mkdir(parents=True)
    wheel.rename(folder / wheel.name)
    return digest


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(f"content of {name}\n")
    return folder


def test_parse_pypi() -> None:
    source = parse_pypi("pypi:Some.Package==4.5.post3+x/data/inner.tar.gz!/a b.txt")
    assert source == ("Some.Package", "4.5.post3+x", "data/inner.tar.gz!/a b.txt")
    assert source.inside == "data/inner.tar.gz!/a b.txt"


@pytest.mark.parametrize("spec", ["pypi:p", "pypi:p==1", "pypi:p==1/", "pypi:p>=1/a", "pypi:==1/a", "pypi:p==1 /a"])
def test_a_malformed_package_source_is_answered_with_an_example(spec: str) -> None:
    with pytest.raises(SourceError, match=r"expected pypi:PACKAGE==VERSION/path/inside, found .* For example: pypi:"):
        parse_pypi(spec)


def test_file_folder_and_pattern(tmp_path: Path) -> None:
    folder = write(tmp_path / "rows", "b.csv", "a.jsonl", "README.md", "notes.txt", ".hidden.csv")
    assert data_files(DataParams(source=str(folder / "notes.txt"))) == {"all": [folder / "notes.txt"]}
    assert data_files(DataParams(source=str(folder))) == {"all": [folder / "a.jsonl", folder / "b.csv"]}
    assert data_files(DataParams(source=str(folder / "*.csv"))) == {"all": [folder / "b.csv"]}
    published = DataParams(source={"train": str(folder / "a.jsonl"), "test": str(folder / "b.csv")})
    assert data_files(published) == {"train": [folder / "a.jsonl"], "test": [folder / "b.csv"]}


def test_a_folder_saved_by_datasets_stands_for_itself(tmp_path: Path) -> None:
    folder = write(tmp_path / "saved", "dataset_info.json", "state.json", "x.parquet")
    (folder / "state.json").write_text(json.dumps({"_data_files": []}))
    assert data_files(DataParams(source=str(folder))) == {"all": [folder]}


def test_files_that_describe_the_data_of_a_folder_are_no_data(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", "dataset_info.json", "state.json", "config.json", "rows.json")
    assert data_files(DataParams(source=str(folder))) == {"all": [folder / "rows.json"]}


def test_a_cloned_data_set_has_its_files_in_folders(tmp_path: Path) -> None:
    folder = write(tmp_path / "clone", "README.md", ".gitattributes")
    for below in ("data", ".git"):
        write(folder / below, "train.parquet")
    assert data_files(DataParams(source=str(folder))) == {"all": [folder / "data" / "train.parquet"]}


def test_what_is_missing_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "rows", "reviews.csv")
    with pytest.raises(SourceError, match=r"no review.csv in .*rows. Did you mean .*rows/reviews.csv\?"):
        data_files(DataParams(source=str(folder / "review.csv")))
    with pytest.raises(SourceError, match=r"no row in .*Did you mean .*/rows\?"):
        data_files(DataParams(source=str(tmp_path / "row" / "reviews.csv")))
    with pytest.raises(SourceError, match="expected files that match, found none"):
        data_files(DataParams(source=str(folder / "*.parquet")))
    write(tmp_path / "other", "README.md")
    with pytest.raises(SourceError, match=r"expected files ending in \.csv .*, found README.md"):
        data_files(DataParams(source=str(tmp_path / "other")))


def test_one_file_cannot_be_train_and_test(tmp_path: Path) -> None:
    file = str(write(tmp_path, "a.csv") / "a.csv")
    with pytest.raises(DataError, match=r"expected every file once, found .*a.csv twice"):
        data_identity(DataParams(source={"train": file, "test": file}))


def test_a_package_source_leads_to_its_files(cached_package: str) -> None:
    data = DataParams(source="pypi:p==1/p/rows", sha256=cached_package)
    assert [path.name for path in data_files(data)["all"]] == ["a.csv", "b.csv"]
    assert data_identity(data) == f"{cached_package}/p/rows"
    model = ModelParams(base="pypi:p==1/p/model/", sha256=cached_package)
    assert sorted(path.name for path in model_folder(model).iterdir()) == ["config.json", "model.safetensors"]
    assert model_identity(model) == f"{cached_package}/p/model/"


def test_the_identity_of_files_follows_content_and_names_not_the_place(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", "a.csv", "b.csv"), write(tmp_path / "two", "a.csv", "b.csv")

    def identity(folder: Path) -> str:
        return data_identity(DataParams(source=str(folder)))

    before = identity(one)
    assert before == identity(two)
    (two / "README.md").write_text("not data")
    assert before == identity(two)
    (two / "b.csv").write_text("content of B.csv\n")
    assert before != identity(two)
    (one / "b.csv").rename(one / "c.csv")
    assert before != identity(one)
    swapped = {"train": str(one / "a.csv"), "test": str(one / "c.csv")}
    published = {"train": str(one / "c.csv"), "test": str(one / "a.csv")}
    assert data_identity(DataParams.model_validate({"source": swapped})) != data_identity(
        DataParams.model_validate({"source": published})
    )


def test_the_identity_of_a_local_model_follows_its_weights(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "config.json", "model.safetensors")
    model = ModelParams(base=str(folder))
    before = model_identity(model)
    (folder / ".cache").mkdir()
    write(folder / ".cache", "x")
    assert model_identity(model) == before
    (folder / "model.safetensors").write_text("other weights, other size")
    assert model_identity(model) != before


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["model.safetensors"], r"expected a folder with config\.json, found model\.safetensors"),
        (["config.json"], r"expected weights \(\*\.safetensors\), found config\.json\. .*set model\.allow_pickle"),
        (["config.json", "training_args.bin"], r"expected weights \(\*\.safetensors\)"),
        (["config.json", "pytorch_model.bin"], r"expected weights in safetensors, found pytorch_model\.bin.*runs code"),
        (["config.json", "model.pt"], r"expected weights in safetensors, found model\.pt"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, names: list[str], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        model_folder(ModelParams(base=str(write(tmp_path / "model", *names))))


def test_pickles_are_loaded_when_they_are_trusted(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "config.json", "pytorch_model.bin")
    assert model_folder(ModelParams(base=str(folder), allow_pickle=True)) == folder


def test_a_git_lfs_pointer_is_no_model(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "config.json")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match=r"a Git LFS pointer in model.safetensors"):
        model_folder(ModelParams(base=str(folder)))


def test_a_missing_model_folder_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    write(tmp_path / "models" / "tiny", "config.json")
    with pytest.raises(SourceError, match=r"model.base .*Did you mean .*/models/tiny\?"):
        model_folder(ModelParams(base=str(tmp_path / "models" / "tiney")))


def test_a_hub_that_is_away_is_said_in_one_line(no_hub: Path) -> None:
    model = ModelParams(base="some/model")
    for call in (lambda: model_folder(model), lambda: model_identity(model)):
        with pytest.raises(SourceError, match="hub model some/model: expected an answer from the hub, found none") as e:
            call()
        assert "\n" not in str(e.value)
        assert str(e.value).endswith("`params/sentiment.yaml` works without a hub.")
    with pytest.raises(SourceError, match="hub dataset some/rows@v2: expected an answer from the hub"):
        data_identity(DataParams(source="hub:some/rows", revision="v2"))


def test_the_commit_of_a_hub_name(no_hub: Path) -> None:
    assert model_identity(ModelParams(base="some/model", revision=COMMIT)) == f"some/model@{COMMIT}"
    refs = no_hub / "models--some--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    assert model_identity(ModelParams(base="some/model")) == f"some/model@{COMMIT}"
    with pytest.raises(SourceError, match="works without a hub"):
        model_identity(ModelParams(base="some/model", revision="v2"))


def test_a_model_in_the_hub_cache_is_used_while_the_hub_is_away(no_hub: Path) -> None:
    repository = no_hub / "models--some--model"
    folder = write(repository / "snapshots" / COMMIT, "config.json", "model.safetensors")
    write(repository / "refs")
    (repository / "refs" / "main").write_text(COMMIT)
    assert model_folder(ModelParams(base="some/model")) == folder
    assert model_folder(ModelParams(base="some/model", revision=COMMIT)) == folder


def test_a_name_the_hub_cannot_have(no_hub: Path) -> None:
    with pytest.raises(SourceError, match="expected a name the hub can have"):
        hub.commit_of("a b", None, "model")
