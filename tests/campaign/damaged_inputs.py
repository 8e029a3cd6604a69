"""Damaged and odd data files through ingestion, splitting, `apf new` and the reader of `apf predict`.

Each case is a process of its own. It went well when everything ended well or with one of apf's own errors, within a
minute and 2 GiB, and when every row that can be counted otherwise was kept, rejected or left out.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from apf_tasks.data.ingestion import ingest
from apf_tasks.data.splitting import split_rows
from apf_tasks.params.data import DataParams, SplitParams
from apf_tasks.params.family import family_params
from apf_tasks.quickstart.draft import draft
from apf_tasks.quickstart.write import write
from apf_tasks.serving._row_chunks import chunks
from tests.campaign.common import Cases, Figure, Workbench
from tests.campaign.isolated import Found, attempt, isolated
from tests.campaign.mutations import MUTATIONS
from tests.support.paths import PROJECT

CASES, QUICK_CASES = 600, 40
SMOKE_DATA = PROJECT / "params" / "smoke" / "data"


class Seed(NamedTuple):
    """A good file to begin with."""

    name: str
    content: bytes
    family: dict[str, Any]
    section: Mapping[str, Any] = {}  # a NamedTuple's default is never written to
    """More of `data`."""

    @property
    def kind(self) -> str:
        """By the end of its name."""
        return self.name.rpartition(".")[2]


def figure(bench: Workbench, quick: bool, seed: int) -> Figure:
    """Of damaged files that were read, or refused with a reason."""
    dice, cases, known = random.Random(seed), Cases("damaged files were read or refused with a reason"), list(seeds())
    for number in range(QUICK_CASES if quick else CASES):
        one = dice.choice(known) if quick or number >= len(known) else known[number]
        changes = [dice.choice(MUTATIONS) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
        content = one.content
        for change in changes if quick or number >= len(known) else ():
            try:
                content = change(content, dice, one.kind)
            except (ValueError, RecursionError):
                continue  # a second change of what is no JSON any more
        cases.add(
            f"{number} {one.name} {'+'.join(change.__name__ for change in changes)}",
            case(bench.folder / str(number), one, content),
        )
    return cases.figure


def seeds() -> Iterator[Seed]:
    """Of every format, from the bundled rows."""
    sentiment: dict[str, Any] = {"name": "sentiment"}
    rows = [json.loads(line) for line in (SMOKE_DATA / "sentiment.jsonl").read_text().splitlines()][:60]
    for end, mark in (("csv", ","), ("tsv", "\t")):
        lines = [mark.join((row["text"].replace(mark, " "), row["label"], str(i))) for i, row in enumerate(rows)]
        yield Seed(f"a.{end}", "\n".join([mark.join(("text", "label", "id")), *lines]).encode(), sentiment)
        ids = {"columns": {"id": "id"}}
        yield Seed(f"ids.{end}", "\n".join([mark.join(("text", "label", "id")), *lines]).encode(), sentiment, ids)
    scores = "".join(f"the text number {i},{i % 5 + 1}\n" for i in range(60))
    yield Seed("ranges.csv", f"text,label\n{scores}".encode(), sentiment, {"labels": {"bad": (1, 2), "good": (4, 5)}})
    yield Seed("bare.csv", scores.encode(), sentiment, {"header": False, "columns": {"text": 0, "label": 1}})
    yield Seed("a.json", json.dumps(rows).encode(), sentiment)
    yield Seed("a.parquet", parquet(rows), sentiment)
    words = [
        {"tokens": ["Anna", "is", "in", "Rome", str(i)], "tags": ["B-PER", "O", "O", "B-LOC", "O"]} for i in range(60)
    ]
    yield Seed("words.parquet", parquet(words), {"name": "ner"})
    yield Seed("words.jsonl", "\n".join(map(json.dumps, words)).encode(), {"name": "ner"})
    text = "\n\n".join(row["text"] for row in rows).encode()
    yield Seed("a.txt", text, {"name": "causal_lm"}, {"documents": "paragraph"})
    catalogue = "".join(f'msgid "a word {i}"\nmsgstr "ein Wort {i}"\n\n' for i in range(60))
    yield Seed("a.po", catalogue.encode(), {"name": "translation"}, {"columns": {"en": "source", "de": "target"}})
    yield from bundled()


def bundled() -> Iterator[Seed]:
    """The rows of the smoke experiments as they are."""
    families: dict[str, dict[str, Any]] = {
        "sentiment": {"name": "sentiment"},
        "sentiment-labels": {"name": "sentiment", "target": "labels"},
        "sentiment-score": {"name": "sentiment", "target": "score", "score_range": (1, 5)},
        "sentiment-pairs": {"name": "sentiment", "pairs": True},
        "causal_lm-instructions": {"name": "causal_lm", "mode": "instructions"},
        "causal_lm": {"name": "causal_lm"},
        "masked_lm": {"name": "masked_lm"},
        "summarization": {"name": "summarization"},
        "translation": {"name": "translation"},
        "question_answering-zh": {"name": "question_answering", "language": "zh"},
        "question_answering": {"name": "question_answering"},
        "ner": {"name": "ner", "words": "whitespace"},
    }
    for stem, family in families.items():
        (file,) = SMOKE_DATA.glob(f"{stem}.*")
        yield Seed(file.name, file.read_bytes(), family)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Rows as such a file."""
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def case(folder: Path, seed: Seed, content: bytes) -> list[str]:
    """What went wrong with a file of that content, where `seed` would be good."""
    folder.mkdir(parents=True)
    file = folder / seed.name
    file.write_bytes(content)
    return isolated(folder, read_everywhere, folder, file, seed)


def read_everywhere(found: Found, folder: Path, file: Path, seed: Seed) -> None:
    """By everything that reads data files."""
    options = family_params(seed.family["name"]).model_validate(seed.family)
    for name in ("raw", "split"):
        (folder / name).mkdir()
    data = DataParams(**{"source": str(file), "max_rejected": 0.999999} | dict(seed.section))
    raw = attempt(found, "ingest", lambda: ingest(folder / "raw", data, options))
    there = count(file, seed)
    if raw is not None:
        counted = sum(raw.rows.values()) + raw.rejected_rows + raw.left_out_rows
        if there is not None and counted != there:
            found["problems"].append(f"ingest counts {counted} rows of {there}")
        attempt(found, "split", lambda: split_rows(folder / "split", raw, SplitParams(), options))
    if (page := attempt(found, "apf new", lambda: draft(seed.family["name"], str(file)))) is not None:
        attempt(found, "apf new", lambda: write(page, folder / "page.yaml"))
    if seed.kind in ("csv", "tsv", "jsonl", "json", "parquet"):
        read = attempt(found, "apf predict", lambda: sum(map(len, chunks(file))))
        if read is not None and there is not None and seed.section.get("header", True) and read != there:
            found["problems"].append(f"apf predict reads {read} rows of {there}")


def count(file: Path, seed: Seed) -> int | None:
    """Its rows, where they can be counted simply."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    if seed.kind == "jsonl" and not text.lstrip().startswith("["):
        return sum(bool(line.strip()) for line in text.split("\n"))
    if seed.kind in ("csv", "tsv") and not any(mark in text for mark in '\r"\0\x0b\x85'):
        lines = sum(bool(line) for line in text.split("\n"))
        return lines - int(bool(seed.section.get("header", True)))
    return None
