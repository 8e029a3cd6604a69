"""`apf new`: what is guessed about a file, what is written, and that ingestion takes it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from apf_tasks.data.ingestion import ingest
from apf_tasks.errors import ApfError, DataError, ParamsError, SourceError
from apf_tasks.params._yaml import Loader
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import load_params
from apf_tasks.quickstart.draft import draft
from apf_tasks.quickstart.names import language_of, plain_name
from apf_tasks.quickstart.page import entry, flow
from apf_tasks.quickstart.settings import MINILM, SMOLLM
from apf_tasks.quickstart.source import has_header
from apf_tasks.quickstart.write import default_path, write
from flows.cli.main import main
from tests.support.tiny import review_rows

COUNT = 120
TEXTS = [row["text"] for row in review_rows(COUNT)]
LABELS = [row["label"] for row in review_rows(COUNT)]
CHINESE = [f"第{i}家酒店的服务很好，房间也很干净，下次还会再来。" for i in range(COUNT)]
NUMBERS = range(COUNT)


def delimited(header: Sequence[str] | None, *columns: Sequence[Any], mark: str = ",") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=mark, lineterminator="\n")
    writer.writerows([*([header] if header else []), *zip(*columns, strict=True)])
    return out.getvalue()


def lines(**columns: Sequence[Any]) -> str:
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


SENTENCES = [["Ada", "Lovelace", "saw", "London", str(i)] for i in NUMBERS]
TAGS = ["B-PER", "I-PER", "O", "B-LOC", "O"]
CONLL = "\n".join("".join(f"{w}\t{t}\n" for w, t in zip(s, TAGS, strict=True)) for s in SENTENCES)
TALKS = [[{"role": "user", "content": text}, {"role": "assistant", "content": f"{text}, yes"}] for text in TEXTS]


def sharegpt(talk: list[dict[str, str]]) -> list[dict[str, str]]:
    """The turns as ShareGPT writes them."""
    return [{"from": {"user": "human", "assistant": "gpt"}[t["role"]], "value": t["content"]} for t in talk]


SQUAD = {
    "data": [
        {
            "title": "a",
            "paragraphs": [
                {"context": text, "qas": [{"id": f"q{i}", "question": "Which?", "answers": [answer]}]}
                for i, text in enumerate(TEXTS)
                for answer in [{"text": text[2:7], "answer_start": 2}]
            ],
        }
    ]
}
NOTICE = [f"CC-BY 2.0 (France) Attribution: tatoeba.org #{i} (someone)" for i in NUMBERS]
MESSAGES = "".join(f'msgid "Save file {i}"\nmsgstr "保存文件{i}"\n\n' for i in NUMBERS)

CASES: dict[str, tuple[str, str, str, dict[str, Any], dict[str, Any]]] = {
    # family, file, its text, columns, other sections and options
    "usual names": (
        "sentiment",
        "a.csv",
        delimited(["", "Review Text", "date", "Sentiment"], NUMBERS, TEXTS, ["2024-05-01"] * COUNT, LABELS),
        {"text": "Review Text", "label": "Sentiment"},
        {},
    ),
    "Chinese names": (
        "sentiment",
        "a.tsv",
        delimited(["评论内容", "情感标签"], CHINESE, ["好评", "差评"] * 60, mark="\t"),
        {"text": "评论内容", "label": "情感标签"},
        {"model.base": "google-bert/bert-base-chinese", "model.max_tokens": 32},
    ),
    "no header": (
        "sentiment",
        "a.csv",
        delimited(None, LABELS, TEXTS),
        {"text": 1, "label": 0},
        {"data.header": False, "model.base": "google-bert/bert-base-uncased"},
    ),
    "numbers on a scale": (
        "sentiment",
        "a.csv",
        delimited(["id", "text", "mean"], NUMBERS, TEXTS, [round(i / 30 - 1.9, 2) for i in NUMBERS]),
        {"id": "id", "text": "text", "score": "mean"},
        {"family.target": "score", "family.score_range": (-2.0, 3.0)},
    ),
    "several labels in a cell": (
        "sentiment",
        "a.csv",
        delimited(["plot", "genres"], TEXTS, ["war|drama", "drama", "music|war"] * 40),
        {"text": "plot", "labels": "genres"},
        {"family.target": "labels", "family.separator": "|"},
    ),
    "labels with a separator inside": (
        "sentiment",
        "a.csv",
        delimited(["headline", "category"], TEXTS, ["World", "Sci/Tech", "Sports"] * 40),
        {"text": "headline", "label": "category"},
        {"family.target": "label"},
    ),
    "lists of labels": (
        "sentiment",
        "a.jsonl",
        lines(text=TEXTS, label=[["war", "drama"], [], ["drama"]] * 40),
        {"text": "text", "labels": "label"},
        {"family.target": "labels"},
    ),
    "pairs": (
        "sentiment",
        "a.jsonl",
        lines(premise=TEXTS, hypothesis=TEXTS[::-1], gold_label=["yes", "no"] * 60),
        {"text": "premise", "text_pair": "hypothesis", "label": "gold_label"},
        {"family.pairs": True},
    ),
    "conll called txt": (
        "ner",
        "a.txt",
        CONLL,
        {"tokens": "tokens", "tags": "tags"},
        {"data.format": "conll", "model.base": "google-bert/bert-base-cased"},
    ),
    "conll called tsv": ("ner", "a.tsv", CONLL, {"tokens": "tokens", "tags": "tags"}, {"data.format": "conll"}),
    "spans": (
        "ner",
        "a.jsonl",
        lines(text=CHINESE, entities=[[[0, 2, "ORG"]]] * COUNT),
        {"text": "text", "spans": "entities"},
        {"model.base": "google-bert/bert-base-chinese"},
    ),
    "tags as numbers": (
        "ner",
        "a.jsonl",
        lines(tokens=SENTENCES, ner_tags=[[1, 2, 0, 3, 0]] * COUNT),
        {"tokens": "tokens", "tags": "ner_tags"},
        {"family.tag_names": ["O", "B-TYPE1", "I-TYPE1", "B-TYPE2"]},
    ),
    "word/tag": (
        "ner",
        "a.txt",
        "江/nr  泽民/nr  到/v  [北京/ns  电台/n]nt  ，/w\n" * COUNT,
        {"tokens": "tokens", "tags": "tags", "compounds": "compounds"},
        {"data.format": "word_tag", "family.entity_tags": {"nr": "PER", "ns": "LOC", "nt": "ORG"}},
    ),
    "SQuAD": (
        "question_answering",
        "a.json",
        json.dumps(SQUAD),
        {"context": "context", "question": "question", "answers": "answers", "id": "id"},
        {"family.language": "en"},
    ),
    "questions in columns": (
        "question_answering",
        "a.csv",
        delimited(["col1", "col2", "col3"], [f"{i}有什么？" for i in NUMBERS], [t[4:9] for t in CHINESE], CHINESE),
        {"context": "col3", "question": "col1", "answer": "col2"},
        {"family.language": "zh"},
    ),
    "document and summary": (
        "summarization",
        "a.tsv",
        delimited(None, ["to title"] * COUNT, [c * 3 for c in CHINESE], [c[:9] for c in CHINESE], mark="\t"),
        {"document": 1, "summary": 2},
        {"data.header": False, "family.language": "zh", "model.base": "google/mt5-small"},
    ),
    "lists of sentences": (
        "summarization",
        "a.jsonl",
        lines(source=[[t, t] for t in TEXTS], target=[[t[:20]] for t in TEXTS[1:]] + [["one more", "two"]]),
        {"source": "source", "target": "target"},
        {"family.summaries": "first", "model.base": "google/flan-t5-small"},
    ),
    "two languages, no header": (
        "translation",
        "a.txt",
        delimited(None, [f"Run to {i}." for i in NUMBERS], CHINESE, NOTICE, mark="\t"),
        {"source": 0, "target": 1},
        {"data.format": "tsv", "data.header": False, "family.source_language": "en", "family.target_language": "zh"},
    ),
    "columns called after languages": (
        "translation",
        "a.jsonl",
        lines(zh=CHINESE, en=TEXTS),
        {"zh": "zh", "en": "en"},
        {"family.source_language": "zh", "family.target_language": "en"},
    ),
    "languages in an object": (
        "translation",
        "a.jsonl",
        lines(translation=[{"de": f"Das ist nicht Haus {i}", "en": f"This is not house {i}"} for i in NUMBERS]),
        {"source": "translation.de", "target": "translation.en"},
        {"family.source_language": "de", "family.target_language": "en"},
    ),
    "gettext": (
        "translation",
        "a.po",
        'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n' + MESSAGES,
        {"source": "source", "target": "target"},
        {"family.target_language": "zh"},
    ),
    "paragraphs": (
        "masked_lm",
        "a.txt",
        "\n\n".join(TEXTS),
        {"text": "text"},
        {"data.format": "text", "data.documents": "paragraph"},
    ),
    "headings": (
        "causal_lm",
        "a.txt",
        "".join(f" = Title {i} = \n\n{text}\n\n" for i, text in enumerate(TEXTS)),
        {"text": "text"},
        {"data.documents": "heading", "model.base": "Qwen/Qwen3-0.6B"},
    ),
    "instructions": (
        "causal_lm",
        "a.json",
        json.dumps([{"instruction": t, "output": f"{t} indeed"} for t in TEXTS]),
        {"prompt": "instruction", "response": "output"},
        {"family.mode": "instructions"},
    ),
    "Alpaca": (
        "causal_lm",
        "a.json",
        json.dumps(
            [{"instruction": t, "input": f"of {t}", "output": f"{t} indeed", "system": "Be brief."} for t in TEXTS]
        ),
        {"prompt": "instruction", "response": "output", "input": "input", "system": "system"},
        {"family.mode": "instructions", "family.systems": True},
    ),
    "Dolly": (
        "causal_lm",
        "a.jsonl",
        lines(instruction=TEXTS, context=["a town"] * COUNT, response=[f"{t} indeed" for t in TEXTS]),
        {"prompt": "instruction", "response": "response", "input": "context"},
        {"family.mode": "instructions"},
    ),
    "pairs of Firefly": (
        "causal_lm",
        "a.jsonl",
        lines(conversation=[[{"human": t, "assistant": "b"}] for t in CHINESE], category=["x"] * COUNT),
        {"messages": "conversation"},
        {"family.mode": "instructions"},
    ),
    "turns of MOSS": (
        "causal_lm",
        "a.jsonl",
        lines(
            meta_instruction=["You are MOSS."] * COUNT,
            chat=[{"turn_1": {"Human": f"<|Human|>: {t}<eoh>", "MOSS": "<|MOSS|>: b<eom>"}} for t in TEXTS],
        ),
        {"messages": "chat", "system": "meta_instruction"},
        {"family.mode": "instructions", "family.systems": True},
    ),
    "conversations": (
        "causal_lm",
        "a.jsonl",
        lines(messages=[[{"role": "system", "content": "Be brief."}, *talk] for talk in TALKS]),
        {"messages": "messages"},
        {"family.mode": "instructions", "family.systems": True},
    ),
    "conversations of ShareGPT": (
        "causal_lm",
        "a.json",
        json.dumps([{"conversations": [{"from": "system", "value": "Be brief."}, *sharegpt(talk)]} for talk in TALKS]),
        {"messages": "conversations"},
        {"family.mode": "instructions", "family.systems": True},
    ),
}


def made(path: Path, family: str, file: str, **told: str) -> Params:
    """What is written for a source, read again; ingestion takes every row of it."""
    found = draft(family, file, told)
    text = write(found, path)
    assert len(text.splitlines()) <= 60
    assert max(map(len, text.splitlines())) <= 120
    params = load_params(path)
    out = path.parent / "raw"
    out.mkdir()
    raw = ingest(out, params.data, params.family)
    assert (dict(raw.rows), raw.rejected_rows) == (found.rows, 0)
    return params


def value_of(params: Params, dotted: str) -> Any:
    found: Any = params
    for part in dotted.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("case", CASES)
def test_columns_format_and_options_are_guessed(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, file, text, columns, others = CASES[case]
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(text, encoding="utf-8")
    params = made(tmp_path / "made.yaml", family, file)
    assert {name: params.data.columns[name] for name in columns} == columns
    assert {name: value_of(params, name) for name in others} == others


def test_labels_that_are_files(tmp_path: Path) -> None:
    for name in ("neg", "pos"):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"{name} {text}" for text in TEXTS))
    params = made(tmp_path / "made.yaml", "sentiment", str(tmp_path))
    assert params.data.columns == {"text": "text", "label": "$file"}
    assert params.data.labels == {"neg": "neg.txt", "pos": "pos.txt"}
    assert params.data.documents == "line"


def test_published_splits_by_the_names_of_files(tmp_path: Path) -> None:
    """Of one set, two are conll by name and one by content; a test without labels cannot be used."""
    for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"):
        (tmp_path / name).write_text(CONLL)
    (tmp_path / "README.md").write_text("about train and test")
    params = made(tmp_path / "made.yaml", "ner", str(tmp_path))
    assert params.data.format == "conll"
    assert params.data.source == {
        "train": str(tmp_path / "wnut17train.conll"),
        "validation": str(tmp_path / "emerging.dev.conll"),
        "test": str(tmp_path / "emerging.test.annotated"),
    }


def test_a_test_file_without_labels_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(delimited(["text", "target"], TEXTS, LABELS))
    (tmp_path / "test.csv").write_text(delimited(["text"], TEXTS))
    params = made(tmp_path / "made.yaml", "sentiment", str(tmp_path))
    assert params.data.source == {"train": str(tmp_path / "train.csv")}
    assert "test.csv has no column 'target', so it is left out" in (tmp_path / "made.yaml").read_text()


def test_without_a_train_file_validation_is_trained_on(tmp_path: Path) -> None:
    for name in ("dev.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(lines(text=TEXTS))
    params = made(tmp_path / "made.yaml", "causal_lm", str(tmp_path))
    assert params.data.source == {"train": str(tmp_path / "dev.jsonl"), "test": str(tmp_path / "test.jsonl")}


def test_two_sets_in_a_folder_are_a_question(tmp_path: Path) -> None:
    for name in ("en.train.json", "zh.train.json", "en.test.json", "zh.test.json"):
        (tmp_path / name).write_text(json.dumps(SQUAD))
    with pytest.raises(SourceError, match=r"expected one train file, found en.train.json, zh.train.json"):
        draft("question_answering", str(tmp_path))
    params = made(tmp_path / "made.yaml", "question_answering", f"{tmp_path}/en.*.json")
    assert params.data.source == {"train": f"{tmp_path}/en.train.json", "test": f"{tmp_path}/en.test.json"}


def test_aligned_files(tmp_path: Path) -> None:
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.en").write_text("\n".join(TEXTS))
        (tmp_path / f"{part}.zh").write_text("\n".join(CHINESE))
    params = made(tmp_path / "made.yaml", "translation", str(tmp_path))
    assert params.data.source == {
        role: f"{tmp_path}/{part}.{{en,zh}}"
        for role, part in (("train", "train"), ("validation", "dev"), ("test", "test"))
    }
    assert draft("translation", str(tmp_path / "dev.zh")).looked.data.source == f"{tmp_path}/dev.{{en,zh}}"


def test_what_the_user_says_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(delimited(["en", "zh", "kind"], TEXTS, CHINESE, LABELS))
    params = made(tmp_path / "made.yaml", "translation", str(file), source="zh", target="en")
    assert params.data.columns == {"source": "zh", "target": "en"}
    assert (params.family.source_language, params.family.target_language) == ("zh", "en")  # type: ignore[attr-defined]
    assert draft("sentiment", str(file), {"text": "1"}).found.guesses[0].source.title == "zh"


def test_a_column_that_cannot_be_guessed(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(delimited(["one", "two"], TEXTS, CHINESE))
    with pytest.raises(DataError) as caught:
        draft("sentiment", str(file))
    assert "expected a column for 'label' (its label)" in str(caught.value)
    assert f"  two: {CHINESE[0]} | {CHINESE[1]}\n  taken as 'text': one\n" in caught.value.found
    assert caught.value.do == "Choose one: --column label=NAME (or its number, from 0)."
    with pytest.raises(ParamsError, match=r"expected one of text, label.*found 'txt'. Did you mean text"):
        draft("sentiment", str(file), {"txt": "one"})
    with pytest.raises(DataError, match="expected a column 'three', found the columns"):
        draft("sentiment", str(file), {"text": "three"})


@pytest.mark.parametrize("mark", [";", "|", "\t"])
def test_cells_may_stand_between_other_marks(tmp_path: Path, mark: str) -> None:
    prices = [f"{i},50" for i in NUMBERS]
    (tmp_path / "a.csv").write_text(delimited(["text", "label", "price"], TEXTS, LABELS, prices, mark=mark))
    found = draft("sentiment", str(tmp_path / "a.csv"))
    assert [guess.source.title for guess in found.found.guesses] == ["text", "label"]
    assert (found.unused, found.rows) == (("price",), {"all": COUNT})


@pytest.mark.parametrize("name", ["classification", "text-classification", "Text_Classification"])
def test_other_tools_names_of_a_family_are_known(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text(delimited(["text", "label"], TEXTS, LABELS))
    assert draft(name, str(tmp_path / "a.csv")).found.family.name == "sentiment"
    with pytest.raises(ParamsError, match="Write `translation` or `summarization`"):
        draft("seq2seq", str(tmp_path / "a.csv"))


def test_the_label_is_the_column_that_the_text_predicts(tmp_path: Path) -> None:
    clients, hours = [("ACME", "Globex", "Stark")[i % 3] for i in NUMBERS], [str(i % 4) for i in NUMBERS]
    header = ["client", "hours", "body", "queue"]
    (tmp_path / "a.csv").write_text(delimited(header, clients, hours, TEXTS, LABELS))
    found = draft("sentiment", str(tmp_path / "a.csv"))
    assert {g.column: g.source.title for g in found.found.guesses} == {"text": "body", "label": "queue"}
    assert set(found.other_labels) == {"client", "hours"}


def test_columns_of_0_and_1_are_several_labels(tmp_path: Path) -> None:
    flags = {"rude": [i % 3 == 0 for i in NUMBERS], "threat": [i % 5 == 0 for i in NUMBERS]}
    columns = [TEXTS, *([int(v) for v in values] for values in flags.values())]
    (tmp_path / "a.csv").write_text(delimited(["comment", *flags], *columns))
    params = made(tmp_path / "made.yaml", "sentiment", str(tmp_path / "a.csv"))
    assert (params.data.columns["labels"], params.family.model_dump()["target"]) == (("rude", "threat"), "labels")


def test_labels_that_look_alike_are_merged(tmp_path: Path) -> None:
    labels = [label.upper() if i < 10 else label for i, label in enumerate(LABELS)]
    (tmp_path / "a.csv").write_text(delimited(["text", "label"], TEXTS, labels))
    params = made(tmp_path / "made.yaml", "sentiment", str(tmp_path / "a.csv"))
    merged = {label: [label, label.upper()] for label in sorted(set(LABELS))}
    assert dict(sorted(params.data.labels.items())) == merged


def test_labels_are_counted_as_ingestion_reads_them(tmp_path: Path) -> None:
    gold = ["-" if i % 3 == 0 else label for i, label in enumerate(LABELS)]
    (tmp_path / "nli.jsonl").write_text(lines(sentence1=TEXTS, sentence2=TEXTS[::-1], gold_label=gold))
    found = draft("sentiment", str(tmp_path / "nli.jsonl"))
    assert (set(found.label_counts), found.bad) == (set(LABELS), {})
    numbers = [("0", "1", "0.0", "1.0")[i % 4] for i in NUMBERS]
    (tmp_path / "a.csv").write_text(delimited(["text", "label"], TEXTS, numbers))
    assert draft("sentiment", str(tmp_path / "a.csv")).label_counts == {"0": COUNT // 2, "1": COUNT // 2}


def test_preferences_are_refused_by_their_name(tmp_path: Path) -> None:
    answers = [{"from": "gpt", "value": text} for text in TEXTS]
    asked = [[{"from": "human", "value": f"Say {i}"}] for i in NUMBERS]
    (tmp_path / "dpo.jsonl").write_text(lines(conversations=asked, chosen=answers, rejected=answers))
    with pytest.raises(DataError, match=r"chosen and rejected answers \(DPO\)"):
        draft("causal_lm", str(tmp_path / "dpo.jsonl"))
    (tmp_path / "kto.jsonl").write_text(lines(messages=TALKS, label=[i % 2 == 0 for i in NUMBERS]))
    with pytest.raises(DataError, match=r"judged true or false \(KTO\)"):
        draft("causal_lm", str(tmp_path / "kto.jsonl"))


def test_no_file_is_written_for_rows_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(text=["", *TEXTS[1:]], label=[None] * 20 + LABELS[20:]))
    found = draft("sentiment", str(tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match=r"at least 90% can be used, found 17% .*no label: 19.*label ← label"):
        write(found, tmp_path / "made.yaml")
    assert not (tmp_path / "made.yaml").exists()


def test_unusable_rows_are_counted_and_not_allowed_for(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(lines(text=["", " ", *TEXTS[2:]], label=LABELS) + "no json\n")
    found = draft("sentiment", str(file))
    assert (found.bad, found.unreadable, found.tried) == ({"empty text": 2}, 1, COUNT)
    write(found, tmp_path / "made.yaml")
    (tmp_path / "raw").mkdir()
    params = load_params(tmp_path / "made.yaml")
    with pytest.raises(DataError, match=r"at most 1.0% unusable rows .*found 3 of 121"):
        ingest(tmp_path / "raw", params.data, params.family)


def test_a_hub_name_is_not_looked_at(tmp_path: Path) -> None:
    found = draft("sentiment", "hub:owner/reviews")
    write(found, tmp_path / "made.yaml")
    params = load_params(tmp_path / "made.yaml")
    assert (params.data.source, params.data.columns, found.rows) == ("hub:owner/reviews", {}, {})
    assert default_path("sentiment", "hub:owner/reviews").name == "sentiment-reviews.yaml"
    with pytest.raises(SourceError, match="expected a file, a folder, a pattern or hub:NAME"):
        draft("sentiment", "pypi:a==1/b")


def test_comments_say_the_values_and_the_other_ways(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(delimited(["text", "stars"], TEXTS, [1, 2, 3, 4, 5, 5] * 20))
    text = write(draft("sentiment", str(file)), tmp_path / "made.yaml")
    flat = " ".join(line.strip().lstrip("# ") for line in text.splitlines())
    assert "label: stars # a usual name for it; 5 different values" in flat
    assert "5 × 40, 1 × 20, 2 × 20, 3 × 20, 4 × 20" in flat
    assert "`target: score`, `score_range: [1, 5]`; below, columns {score: stars} in place of label" in flat
    assert "labels: {negative: [1, 3], positive: [3, 5]}" not in flat
    assert "labels: {negative: [1, 2], positive: [4, 5]}" in flat
    assert [part for part in MINILM[:2] if part not in text] == [], text
    decoder = write(draft("causal_lm", str(file)), tmp_path / "lm.yaml")
    assert [part for part in SMOLLM[:2] if part not in decoder] == [], decoder


def test_a_decoder_in_place_of_a_pair_is_told_its_room(tmp_path: Path) -> None:
    """24 characters are 6 tokens; 64 for the output and 80 for the prompt make 150, in steps of 32: 160."""
    file = tmp_path / "a.jsonl"
    file.write_text(lines(source=[f"This is the house {i:03d}.." for i in NUMBERS], target=CHINESE))
    text = write(draft("translation", str(file)), tmp_path / "made.yaml")
    assert "# with max_tokens: 160, as a decoder holds its prompt and the output too" in text
    assert load_params(tmp_path / "made.yaml").model.max_tokens == 32  # 6 tokens and 3 marks, rounded up


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params").mkdir()
    Path("my reviews.csv").write_text(delimited(["body", "stars"], TEXTS, LABELS))
    assert run("new", "sentiment", "my reviews.csv") == 0
    shown = capsys.readouterr().out
    assert "apf check params/sentiment-my-reviews.yaml" in shown
    assert "120 rows · English · sentiment" in shown
    before = Path("params/sentiment-my-reviews.yaml").read_bytes()
    assert run("new", "sentiment", "my reviews.csv", "--column", "text=stars", "--column", "label=body") == 1
    assert "which exists. Choose another one, or add --force." in capsys.readouterr().err
    assert Path("params/sentiment-my-reviews.yaml").read_bytes() == before
    assert run("new", "sentiment", "my reviews.csv", "--column", "text=1", "--column", "label=body", "--force") == 0
    assert load_params("sentiment-my-reviews").data.columns == {"text": "stars", "label": "body"}
    assert run("check", "sentiment-my-reviews") == 0


def run(*arguments: str) -> int:
    try:
        return main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)


def test_an_encoding_that_has_to_be_said(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(delimited(["text", "label"], ["é"] * 4, ["a", "b"] * 2).encode("cp1252"))
    with pytest.raises(ApfError) as caught:
        draft("sentiment", str(file))
    assert "--encoding" in caught.value.do
    assert draft("sentiment", str(file), {"text": "text"}, "cp1252").rows == {"all": 4}


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (["text", "label"], True),
        (["a film", "kind"], True),
        (["it was fine and I liked it so much that I saw it twice", "kind"], False),
        (["a film", "3"], False),
        (["a film", "negative"], False),  # a value that comes again
    ],
)
def test_a_header_is_recognised(first: list[str], expected: bool) -> None:
    assert has_header(delimited(first, TEXTS, LABELS), "csv") is expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The cat is on the mat and it was not mine.", "en"),
        ("这部电影不错", "zh"),
        ("この映画はとても良かったです", "ja"),
        ("Der Hund ist nicht da und das ist gut.", "de"),
        ("Le chat est dans la maison et il ne dort pas.", "fr"),
        ("Это очень хороший фильм", "ru"),
        ("OK 42", "en"),
    ],
)
def test_language_by_script_and_frequent_words(text: str, code: str) -> None:
    assert language_of([text]) == code


@pytest.mark.parametrize(
    "value", ["no", "3e-5", "a: b", "x, y", "{en,zh}", "1", "", "a #b", "true", "第一", "\x07", "|"]
)
def test_every_text_survives_the_page(value: str) -> None:
    assert yaml.load("\n".join(entry("key", value, "why")), Loader) == {"key": value}
    assert yaml.load(flow({value: [value, 1.5, True]}), Loader) == {value: [value, 1.5, True]}


def test_spellings_of_a_name() -> None:
    assert {plain_name(name) for name in ("Review-Text", "reviewText", " review text", "\ufeffreview.text")} == {
        "review_text"
    }
