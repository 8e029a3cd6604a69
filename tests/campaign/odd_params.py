"""Odd params files through what `apf check` does: wrong types, extreme numbers, strange keys, hostile YAML.

A case went well when it ended within a minute and 2 GiB as fine or with one of apf's own errors, whose text can be
printed and has at most 20,000 characters.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from apf_tasks.params._yaml import Loader
from apf_tasks.params.file import load_experiment
from tests.campaign.common import SMOKE, Cases, Figure, Workbench
from tests.campaign.isolated import Found, attempt, isolated
from tests.support.paths import PROJECT

CASES, QUICK_CASES = 300, 40
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**63, 10**30, -0.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan")),
    *(
        "",
        " ",
        "abc",
        "1",
        "1e-3",
        "true",
        "null",
        "~",
        "é中文",
        "../../etc",
        "a\nb",
        "\x1b[31mred",
        "x" * 30_000,
        "${HOME}",
    ),
    *("runs:/abc", "models:/x@champion", "hub:x/y", "pypi:a==1/b", "file:///etc", "http://user:secret@localhost/x"),
    *([], {}, [1], ["a"], {"a": 1}, {"low": 1, "high": 0}, {"name": "x"}, [[[[]]]], [None, None], "2026-01-01"),
)
KEYS = ("é", "", "a.b", "__class__", "model_config", "train", "learning_rate", "\u202e", "x" * 500, "self", "name", "1")
REST = "data: {source: x}\nmodel: {base: x}\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
SIZES = "family: sentiment\ndata: {source: x}\nmodel: {init: scratch, architecture: bert, sizes: "
FILES: dict[str, str] = {
    "a bomb": BOMB,
    "a bomb in a section": f"{BOMB}family: sentiment\ndata: {{source: x, columns: *i}}\nmodel: {{base: x}}\n",
    "a bomb in the space": f"{BOMB}family: sentiment\n{REST}search: {{space: {{train.learning_rate: *i}}}}\n",
    "a bomb as a name": f"{BOMB}name: *i\nfamily: sentiment\n{REST}",
    "a ring": "a: &a [*a]\nfamily: sentiment\n",
    "a ring in a section": f"family: &f {{name: sentiment, labels: *f}}\n{REST}",
    "a ring of sizes": f"{SIZES}&s {{a: *s}}}}\n",
    "deep": "[" * 3000 + "]" * 3000,
    "deep in a section": f"{SIZES}{'{a: ' * 900}1{'}' * 900}}}\n",
    "deep lists in a section": f"{SIZES}{{a: {'[' * 2000}{']' * 2000}}}}}\n",
    "a call": "family: !!python/object/apply:os.system ['false']\n",
    "a name of Python": "family: !!python/name:os.system\n",
    "a tag": f"family: !x sentiment\n{REST}",
    "bytes": f"family: !!binary aGVsbG8=\n{REST}",
    "a set": "family: !!set {sentiment}\ndata: !!omap [a: b]\nmodel: {base: x}\n",
    "a merge": "x: &x {base: x}\nfamily: sentiment\ndata: {source: x}\nmodel: {<<: *x}\n",
    "a merge of nothing": "family: sentiment\ndata: {source: x}\nmodel: {<<: 3}\n",
    "two documents": "family: sentiment\n---\nfamily: ner\n",
    "tabs": "family:\tsentiment\ndata:\n\tsource: x\n",
    "NUL": "family: sent\0iment\n",
    "half a pair": f'name: "\\ud800"\nfamily: sentiment\n{REST}',
    "half a pair as a key": f'family: sentiment\n{REST}"\\udfff": 1\n',
    "half a pair as a family": f'family: "\\ud800"\n{REST}',
    "controls": f'name: "a\\u001b[2Jb"\nfamily: "\\u001b[31mred"\n{REST}',
    "a date as a key": f"2026-01-01: 1\nfamily: sentiment\n{REST}",
    "nothing as a key": "~: 1\nfamily: sentiment\ndata: {~: x}\nmodel: {base: x}\n",
    "a list as a key": "? [a, b]\n: 1\nfamily: sentiment\n",
    "a long integer": f"family: sentiment\ndata: {{source: x}}\nmodel: {{base: x, max_tokens: {'9' * 5000}}}\n",
    "a long hexadecimal": f"family: sentiment\ndata: {{source: x}}\nmodel: {{base: x, max_tokens: 0x{'f' * 5000}}}\n",
    "no number": f"family: sentiment\n{REST}train: {{learning_rate: 1e999}}\n",
    "many epochs": f"family: sentiment\n{REST}train: {{epochs: 1e308}}\n",
    "a wrong date": "family: sentiment\ndata: {source: 2026-02-30}\nmodel: {base: x}\n",
    "a long list": f"family: sentiment\n{REST}search: {{space: {{train.seed: {list(range(20_000))}}}}}\n",
    "nothing": "",
    "a word": "sentiment",
    "a list": "- a\n- b\n",
    "vectors of nothing": "vectors:\n",
    "a bomb of vectors": f"{BOMB}vectors: {{dimensions: *i}}\ndata: {{source: x}}\n",
    "CR": "family: sentiment\rdata: {source: x}\rmodel: {base: x}\r",
}
OVERRIDES = (
    *("train=5", "train.learning_rate.x=3", "=1", "a", "train.learning_rate=", "train..x=1", ".=1", "search.space.=1"),
    *(
        "search=[1]",
        "family=[a]",
        "é=1",
        "train.learning_rate=!!python/name:os.system",
        "model=~",
        "name=a/b",
        "name=..",
    ),
    *(
        "train.learning_rate=[" + "[" * 3000,
        "search.space={a: &a [*a]}",
        "train.optimizer.name=3",
        "name=" + "x" * 3000,
    ),
    *('name="\\ud800"', "search.trials=1e9", "runtime.devices=100000", "train.epochs=1e300", "data.source={train: a}"),
)


class Case(NamedTuple):
    """A params file and what is written behind it."""

    name: str
    text: str
    overrides: tuple[str, ...] = ()


def figure(bench: Workbench, quick: bool, seed: int) -> Figure:
    """Of params files that were fine, or refused with a reason."""
    dice, cases = random.Random(seed), Cases("odd params files were taken or refused with a reason")
    known = [*written_by_hand(), *changed(dice)]
    for number, one in enumerate(dice.sample(known, QUICK_CASES) if quick else known):
        folder = bench.folder / str(number)
        folder.mkdir()
        (folder / "case.yaml").write_bytes(one.text.encode("utf-8", "surrogatepass"))
        cases.add(f"{number} {one.name}", checked(folder, one))
    return cases.figure


def checked(folder: Path, one: Case) -> list[str]:
    """What went wrong."""
    return isolated(folder, check, str(folder / "case.yaml"), list(one.overrides))


def check(found: Found, file: str, overrides: list[str]) -> None:
    """As the command does."""
    attempt(found, "check", lambda: load_experiment(file, overrides))


def written_by_hand() -> Iterator[Case]:
    """Files and overrides that somebody might send on purpose."""
    yield from (Case(name, text) for name, text in FILES.items())
    text = (PROJECT / SMOKE).read_text()
    yield from (Case(f"override {given[:40]}", text, (given,)) for given in OVERRIDES)


def changed(dice: random.Random) -> Iterator[Case]:
    """Shipped experiments with other values."""
    written = [(path, yaml.load(path.read_text(), Loader)) for path in sorted((PROJECT / "params").rglob("*.yaml"))]
    for number in range(CASES - len(FILES) - len(OVERRIDES)):
        path, values = dice.choice(written)
        found = copy.deepcopy(values)
        for _ in range(dice.choice((1, 1, 2, 4))):
            change(found, dice)
        yield Case(f"{path.stem} {number}", yaml.safe_dump(found, allow_unicode=dice.random() < 0.5))


def change(values: dict[str, Any], dice: random.Random) -> None:
    """One value, at some depth: another, gone, or one of a strange name."""
    section = values
    while dice.random() < 0.75 and (
        inner := [value for value in section.values() if isinstance(value, dict) and value]
    ):
        section = dice.choice(inner)
    if not section:
        return
    key, act = dice.choice(list(section)), dice.random()
    if act < 0.7:
        section[key] = dice.choice(VALUES)
    elif act < 0.8:
        del section[key]
    else:
        section[dice.choice(KEYS)] = dice.choice(VALUES)
