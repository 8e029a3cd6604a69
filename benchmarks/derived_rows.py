"""Rows for the cases whose package has none of their kind, made of what other packages hold. Always the same ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from apf_tasks.data.ingestion import ingest
from apf_tasks.data.rows import read_rows
from apf_tasks.params.file import load_params
from apf_tasks.sources.data import package_path

PARAMS = Path(__file__).parent / "params"
ACLSUM = "pypi:aclsum==0.1.2/aclsum/dataset"
ACLSUM_SHA256 = "c75ffc48d3eabc5f37c68ea087943780a85950087957759e89746f21111f2213"
"""250 papers of computational linguistics with three summaries each (MIT): Takeshita et al. 2024, ACLSum."""
SENTENCES, QUESTIONS = 10, 2
"""Sentences of a context, and how many questions are asked about it."""

Row = dict[str, str]


def documents(folder: Path) -> list[Row]:
    """Abstract, introduction and conclusion of a paper as one text."""
    return [{"text": " ".join(s for part in paper["sentences"].values() for s in part)} for paper in _papers()]


def summaries(folder: Path) -> list[Row]:
    """An abstract behind what is asked of it, three times, with the summary of that aspect."""
    return [
        {"document": f"{aspect}: {' '.join(paper['sentences']['abstract'])}", "summary": summary}
        for paper in _papers()
        for aspect, summary in paper["summary"].items()
    ]


def instructions(folder: Path) -> list[Row]:
    """Messages of a program with their translations, as requests and answers."""
    pairs = _rows_of("translation", folder)
    return [
        {"prompt": f"Translate into Chinese: {source}", "response": target}
        for source, target in zip(pairs["source"], pairs["target"], strict=True)
    ]


def questions(folder: Path) -> list[Row]:
    """Some sentences, one of them again without one to three of its words, and these words."""
    sentences = [text for text in _rows_of("sentiment", folder)["text"] if len(text.split()) > 5]
    groups = [sentences[at : at + SENTENCES] for at in range(0, len(sentences), SENTENCES)]
    return [row for at, group in enumerate(groups) for row in _questions_about(group, random.Random(at))]


def _questions_about(sentences: Sequence[str], draw: random.Random) -> Iterator[Row]:
    context = " ".join(sentences)
    for number in draw.sample(range(len(sentences)), min(QUESTIONS, len(sentences))):
        words = sentences[number].split(" ")
        count = draw.randint(1, 3)
        first = draw.randrange(len(words) - count)
        before = " ".join([*sentences[:number], *words[:first]])
        answer = " ".join(words[first : first + count])
        asked = " ".join([*words[:first], "what", *words[first + count :]])
        start = len(before) + (1 if before else 0)
        yield {"context": context, "question": asked, "answer": answer, "answer_start": str(start)}


def _rows_of(case: str, folder: Path) -> pd.DataFrame:
    """What another case reads, in its order."""
    params = load_params(PARAMS / f"{case}.yaml")
    out = folder / f"rows of {case}"
    out.mkdir()
    return read_rows(ingest(out, params.data, params.family).path / "rows.parquet")


def _papers() -> list[dict[str, dict[str, list[str]]]]:
    files = sorted(package_path(ACLSUM, ACLSUM_SHA256).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


Derive = Callable[[Path], list[Row]]
