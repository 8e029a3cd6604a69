"""What a user may write, and what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from apf_tasks.errors import ParamsError
from apf_tasks.params.file import find_params, grid, load_experiment, load_params, parse_overrides, with_trial
from tests.support.paths import PROJECT

SHIPPED = sorted((PROJECT / "params").rglob("*.yaml"))


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with params/small.yaml."""
    (tmp_path / "params").mkdir()
    path = tmp_path / "params" / "small.yaml"
    path.write_text("family: sentiment\ndata: {source: rows.csv}\nmodel: {base: some/model}\n")
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(PROJECT)))
def test_every_shipped_file_is_fine(path: Path) -> None:
    params = load_experiment(path, ())
    assert params.name == path.stem
    assert type(params).model_validate(params.model_dump(by_alias=True)) == params


def test_a_bare_name_means_a_file_in_params(written: Path) -> None:
    assert find_params("small") == find_params("params/small.yaml") == Path("params/small.yaml")
    with pytest.raises(ParamsError, match=r"found smal\. Did you mean params/small.yaml\?"):
        find_params("smal")


def test_defaults_are_filled_in(written: Path) -> None:
    params = load_params(written)
    assert (params.name, params.model_name, params.metric) == ("small", "small", "accuracy")
    assert params.train.optimizer.name == "adamw"


def test_all_problems_at_once_with_the_nearest_key(written: Path) -> None:
    overrides = [
        "train.learnin_rate=1",
        "train.learning_rate=-1",
        "tran.epochs=2",
        "split.method=hsh",
        "family=sentimnt",
    ]
    with pytest.raises(ParamsError) as caught:
        load_params(written, overrides)
    text = str(caught.value)
    assert "5 problems" in text
    assert "train.learnin_rate: unknown key. Did you mean 'learning_rate'?" in text
    assert "train.learning_rate: input should be greater than or equal to 0, found -1" in text
    assert "tran: unknown key. Did you mean 'train'?" in text
    assert "split.method: input should be 'hash'" in text
    assert "family: expected one of causal_lm, masked_lm, ner, question_answering, sentiment" in text
    assert "Did you mean 'sentiment'?" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=3", "data.source: "),
        ("train.batch_size=many", "train.batch_size: input should be a valid integer"),
        ("train=5", "1 problem\n  train: expected a section with keys of its own, found 5"),
        ("family=nosuch", "translation, found 'nosuch'. Choose one of them, or name a module of your own."),
        ("data.labels={a: [2, 1]}", "the range of 'a' runs from 2.0 down to 1.0"),
        ("data.labels={a: [0, 2], b: [2, 3]}", "the ranges of 'a' and 'b' overlap at 2.0"),
        ("model.base=pypi:x==1/y", "a pypi: base needs `sha256`"),
        ("data.source=pypi:x==1/y", "a pypi: source needs `sha256`"),
        ("split.test_fraction=0.95", "leave nothing to train on"),
        ("search.space={data.source: [a]}", "'data.source' cannot be searched"),
        ("search.space={train.epochs: []}", "'train.epochs' has no values"),
        ("search.space={train.epoch: [1]}", "train.epoch: unknown key. Did you mean 'epochs'?"),
        ("search.space={train.epochs: [1, soon]}", "train.epochs: input should be a valid number"),
        ("search={space: {train.epochs: {low: 2, high: 1}}, strategy: random}", "the range runs from 2 to 1"),
        ("search={space: {train.epochs: {low: 0, high: 1, log: true}}, strategy: tpe}", "needs a low above 0"),
        ("search={space: {train.epochs: {low: 1, high: 2}}}", "'train.epochs' is a range: write random or tpe"),
        ("search={space: {train.batch_size: {low: 0, high: 9}}, strategy: tpe}", "greater than 0, found 0"),
        ("search={space: {train.warmup_fraction: {low: 0.5, high: 2}}, strategy: random}", "train.warmup_fraction: "),
        ("search={space: {train.epochs: [1]}, trials: 3}", "`trials` requires `strategy: random` or `tpe`"),
        ("search.halving.eta=1", "search.halving.eta: input should be greater than 1"),
        ("select.metric=acuracy", "select.metric: expected one of accuracy"),
        ("model.trust=1", "model.trust: unknown key. Did you mean 'trust_remote_code'?"),
        ("data={}", "data.source: is missing"),
    ],
)
def test_what_is_not_allowed_is_named(written: Path, override: str, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        load_params(written, [override])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty file"),
        ("- a\n", "found list"),
        ("family: [\n", "YAML in UTF-8"),
        ("family: sentiment\nfamily: sentiment\n", "duplicate key 'family'"),
        ("model: {{base}}\n", "a mapping or list in place of a key: quote braces that are text"),
        ("model:\n  ? [base]\n  : 1\n", "line 2, column 5"),
        ("data: {source: 2026-02-30}\n", "day is out of range for month: quote it if it is a word"),
    ],
)
def test_a_file_that_is_no_params_file(written: Path, text: str, message: str) -> None:
    written.write_text(text)
    with pytest.raises(ParamsError) as caught:
        load_params(written)
    assert message in str(caught.value)


def test_numbers_and_words_are_read_as_people_mean_them(written: Path) -> None:
    overrides = parse_overrides(["train.learning_rate=3e-5", "x=no", "y=on", "z=true", "n=12", "f=1.", "s=1.2.3"])
    assert overrides == {"train.learning_rate": 3e-5, "x": "no", "y": "on", "z": True, "n": 12, "f": 1.0, "s": "1.2.3"}
    with pytest.raises(ParamsError, match="name=value"):
        parse_overrides(["train.epochs"])


def test_trials_are_all_combinations(written: Path) -> None:
    space = "search.space={train.learning_rate: [1e-5, 2e-5], train.optimizer.beta1: [0.8, 0.9]}"
    params = load_params(written, [space])
    found = grid(params)
    assert len(found) == params.search.count == 4
    assert found[1] == {"train.learning_rate": 1e-5, "train.optimizer.beta1": 0.9}
    train = with_trial(params, found[1]).train
    assert (train.learning_rate, train.optimizer.beta1) == (1e-5, 0.9)
    assert grid(load_params(written)) == [{}]


def test_a_section_can_be_searched_as_a_whole(written: Path) -> None:
    digest = "0" * 64
    params = load_params(written, [f"search.space={{model: [{{base: a}}, {{base: pypi:x==1/y, sha256: '{digest}'}}]}}"])
    models = [with_trial(params, trial).model for trial in grid(params)]
    assert [model.base for model in models] == ["a", "pypi:x==1/y"]
    assert {model.max_tokens for model in models} == {params.model.max_tokens}  # what is not named stays
    with pytest.raises(ParamsError, match="a pypi: base needs `sha256`"):
        load_params(written, ["search.space={model: [{base: a}, {base: pypi:x==1/y}]}"])


def test_a_value_that_is_given_is_not_searched(written: Path) -> None:
    with written.open("a") as file:
        file.write("search: {space: {train.learning_rate: [1e-5, 2e-5], train.epochs: [1, 2]}}\n")
    params = load_params(written, ["train.learning_rate=3e-5"])
    assert grid(params) == [{"train.epochs": 1}, {"train.epochs": 2}]
    assert params.train.learning_rate == 3e-5
    assert len(grid(load_params(written))) == 4


def test_one_searched_value_from_the_command_line(written: Path) -> None:
    params = load_params(written, ["search.space.train.learning_rate=[1e-5]"])
    assert params.search.space == {"train.learning_rate": [1e-5]}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (BOMB + "name: *i\nfamily: sentiment\n", "more than 1,000,000 values, as aliases repeat them"),
        ("family: &f {name: sentiment, labels: *f}\n", "a value that contains itself"),
        ("[" * 3000 + "]" * 3000, "values nested too deep"),
        ("family: sentiment\nmodel: {sizes: " + "{a: " * 900 + "1" + "}" * 900 + "}\n", "values nested too deep"),
    ],
    ids=["repeated without end", "in itself", "deep", "deep in a section"],
)
def test_a_file_that_would_never_be_read_is_refused(written: Path, text: str, found: str) -> None:
    written.write_text(text)
    with pytest.raises(ParamsError, match=found) as caught:
        load_params(written)
    assert len(str(caught.value)) < 1000


def test_an_override_that_is_nested_too_deep_is_refused(written: Path) -> None:
    with pytest.raises(ParamsError, match=r"override train\.learning_rate: expected a YAML value"):
        load_params(written, ["train.learning_rate=" + "[" * 3000])


def test_long_values_and_many_problems_are_told_in_short(written: Path) -> None:
    seeds = ", ".join(f'"{n}{"x" * 1000}"' for n in range(200))
    with written.open("a") as file:
        file.write(f"search: {{space: {{train.seed: [{seeds}]}}}}\n")
    with pytest.raises(ParamsError, match=r"… \(1,004 characters\)\n  and 150 more\n") as caught:
        load_params(written)
    assert len(str(caught.value)) < 20_000
