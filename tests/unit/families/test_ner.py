"""Named entities: shapes of rows, words and windows, decoding, and what a model of each architecture is given."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from apf_tasks.data.batching import collate
from apf_tasks.evaluation.predictor import metric_scores, row_statistics
from apf_tasks.examples import Columns, Examples, token_table
from apf_tasks.families._text_words import WordCut, cut, joined, located
from apf_tasks.families.ner.decoding import tag_names, viterbi_decode
from apf_tasks.families.ner.params import NerParams
from apf_tasks.families.ner.word_pieces import encode_words, frame_of, windows
from apf_tasks.family import BaselineInputs, CheckedRows, Family, get_family
from apf_tasks.models.pretrained import BaseModelInfo, load_base
from apf_tasks.params.model import ModelParams
from apf_tasks.sources.formats.word_tag import read_word_tag
from tests.support.tiny import ENCODERS, tiny_model

ENGLISH = ["Ada Lovelace was born in London.", "Techno-based bands from Japan, e.g. Osc-Dis, met U.S. fans."] * 20
CHINESE = ["江泽民和李鹏今天在北京会见了克林顿。", "中国国际广播电台的记者兰红光，１９９８年摄。"] * 20


def family(**options: object) -> Family:
    return get_family(NerParams.model_validate({"name": "ner", **options}))


def checked(rows: list[dict[str, Any]], **options: object) -> CheckedRows:
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(n for row in rows for n in row)}
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    return family(**options).check(frame)


def tagged(tokens: str, tags: str, **options: object) -> list[str]:
    found = checked([{"tokens": tokens.split(), "tags": tags.split()}], **options)
    assert found.reasons.tolist() == [""]
    assert found.rows["tokens"][0] == tokens.split()
    return list(found.rows["tags"][0])


def words(text: str, how: WordCut) -> list[str]:
    return [text[start:end] for start, end in cut(text, how)]


def test_a_text_is_cut_into_words() -> None:
    text = " In Paris, U.S.\u00a0$5 "
    assert words(text, "whitespace") == ["In", "Paris,", "U.S.", "$5"]
    assert words(text, "punctuation") == ["In", "Paris", ",", "U", ".", "S", ".", "$", "5"]
    assert words(text, "auto") == words(text, "punctuation")
    assert words("在 WTO。", "characters") == ["在", "W", "T", "O", "。"]
    assert words("我在北京WTO。", "auto") == list("我在北京WTO。")
    assert words("हिन्दी में", "punctuation") == ["हिन्दी", "में"]
    assert words("", "auto") == []


def test_tokens_make_a_text_that_is_cut_into_them_again() -> None:
    assert joined(["Paris", ",", "France"], "auto") == ("Paris , France", [(0, 5), (6, 7), (8, 14)])
    assert joined(["我", "在", "W", "T", "O"], "auto")[0] == "我在WTO"
    assert joined(["在", "New", "York", "2", "年"], "characters")[0] == "在New York2年"
    assert located(["Paris", ","], " Paris, ") == [(1, 6), (6, 7)]
    assert located(["Paris", ","], "in Paris,") is None
    assert located(["Paris"], "Paris, ") is None


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC"),
        ("B-PER E-PER O S-LOC", "B-PER I-PER O B-LOC"),  # BIOES
        ("B-PER L-PER O U-LOC", "B-PER I-PER O B-LOC"),  # BILOU
        ("S-PER S-PER O S-LOC", "B-PER B-PER O B-LOC"),
        ("I-PER I-PER O I-LOC", "B-PER I-PER O B-LOC"),  # IO
        ("PER PER O LOC", "B-PER I-PER O B-LOC"),
        ("I-PER B-PER O I-LOC", "B-PER B-PER O B-LOC"),  # IOB1
        ("B-x-y I-x-y O O", "B-x-y I-x-y O O"),
        ("O O O O", "O O O O"),
    ],
)
def test_schemes_become_bio(tags: str, expected: str) -> None:
    assert tagged("Ada Lovelace saw London", tags) == expected.split()


def test_illegal_tags_are_repaired_and_counted() -> None:
    rows = [
        {"tokens": ["a", "b", "c"], "tags": ["O", "I-PER", "B-PER"]},
        {"tokens": ["a", "b", "c"], "tags": ["B-PER", "I-LOC", "I-LOC"]},
        {"tokens": ["a", "b", "c"], "tags": ["B-PER", "E-PER", "I-PER"]},
    ]
    found = checked(rows)
    assert found.rows["tags"].tolist() == [
        ["O", "B-PER", "B-PER"],
        ["B-PER", "B-LOC", "I-LOC"],
        ["B-PER", "I-PER", "B-PER"],
    ]
    assert found.notes == {"tags that continue no entity, now its first": 3}
    # a file without any B is in another scheme, not in a broken one
    assert checked([{"tokens": ["a"], "tags": ["I-PER"]}]).notes == {}


def test_types_are_renamed_and_others_are_no_entities() -> None:
    assert tagged("Ada of ACME", "B-person O B-company", entity_tags={"person": "PER"}) == ["B-PER", "O", "O"]


def test_numbers_stand_for_tags_that_are_named() -> None:
    rows: list[dict[str, Any]] = [{"tokens": ["Ada", "sat"], "tags": [1, 0]}]
    assert checked(rows, tag_names=["O", "B-PER"]).rows["tags"][0] == ["B-PER", "O"]
    assert checked(rows).reasons[0] == "tag 1 is a number, and family.tag_names has no names"
    assert checked(rows, tag_names=["O"]).reasons[0] == "tag 1 is a number, and family.tag_names has 1 names"


def test_lists_may_be_written_as_text() -> None:
    rows = [{"tokens": "Ada sat", "tags": "B-PER O"}, {"tokens": '["Ada", "sat"]', "tags": '["B-PER", "O"]'}]
    found = checked(rows)
    assert found.rows["tags"].tolist() == [["B-PER", "O"]] * 2
    assert found.rows["tokens"].tolist() == [["Ada", "sat"]] * 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"tokens": None, "tags": None}, "no tokens"),
        ({"tokens": [], "tags": []}, "no tokens"),
        ({"tokens": [" ", "\u3000"], "tags": ["O", "O"]}, "no tokens"),
        ({"tokens": ["a"], "tags": None}, "no tags"),
        ({"tokens": {"a": 1}, "tags": ["O"]}, "tokens are not a list of words"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens but 1 tags"),
        ({"tokens": ["a", " "], "tags": ["O", "B-PER"]}, "an entity of type PER without any character"),
        (
            {"tokens": ["a"], "tags": ["X-PER"]},
            "tag 1 is 'X-PER', not O, nor B, I, E, S (M, L, U), a hyphen and a type",
        ),
        ({"tokens": ["a"], "tags": ["PER"]}, "tag 1 is 'PER', not O, nor B, I, E, S (M, L, U), a hyphen and a type"),
    ],
)
def test_each_bad_row_of_tags_has_its_reason(row: dict[str, Any], reason: str) -> None:
    good = {"tokens": ["Ada", "saw", "Bo"], "tags": ["B-PER", "O", "B-PER"]}
    found = checked([row, good])
    assert found.reasons.tolist() == [reason, ""]
    assert found.rows["tags"].tolist() == [None, ["B-PER", "O", "B-PER"]]


def test_a_file_of_nothing_but_unknown_prefixes_is_no_file_of_plain_types() -> None:
    reason = "tag 1 is 'B_PER', not O, nor B, I, E, S (M, L, U), a hyphen and a type"
    assert checked([{"tokens": ["a", "b"], "tags": ["B_PER", "O"]}]).reasons.tolist() == [reason]


def test_spans_become_tags_of_words() -> None:
    text = "In Paris, Ada Lovelace sat."
    spans = [[10, 22, "PER"], {"start": 3, "end": 8, "label": "LOC"}]
    for given in (spans, json.dumps(spans)):
        found = checked([{"text": text, "spans": given}])
        assert found.rows["tokens"][0] == ["In", "Paris", ",", "Ada", "Lovelace", "sat", "."]
        assert found.rows["tags"][0] == ["O", "B-LOC", "O", "B-PER", "I-PER", "O", "O"]
        assert found.notes == {}
    assert checked([{"text": "北京在中国", "spans": [[0, 2, "LOC"]]}]).rows["tags"][0] == [
        "B-LOC",
        "I-LOC",
        "O",
        "O",
        "O",
    ]
    assert checked([{"text": text, "spans": []}]).rows["tags"][0] == ["O"] * 7


def test_spans_are_fitted_to_words_and_counted() -> None:
    text = "In Paris, Ada sat"
    rows = [{"text": text, "spans": [[2, 9, "LOC"], [10, 12, "PER"], [10, 12, "PER"]]}]
    found = checked(rows, words="whitespace")
    assert found.rows["tags"][0] == ["O", "B-LOC", "B-PER", "O"]
    assert found.notes == {
        "spans given twice": 1,
        "spans trimmed of white space at their ends": 1,
        "spans widened to whole words": 1,
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": None, "spans": []}, "no text"),
        ({"text": "Ada", "spans": None}, "the list of spans is missing; a row without entities needs an empty one"),
        ({"text": "Ada", "spans": "PER"}, "the list of spans is missing; a row without entities needs an empty one"),
        ({"text": "Ada", "spans": [[0, 3]]}, "span 1 is not [start, end, type]"),
        ({"text": "Ada", "spans": [["0", "3", "PER"]]}, "span 1 is not [start, end, type]"),
        ({"text": "Ada", "spans": [[0, 3, " "]]}, "span 1 is not [start, end, type]"),
        ({"text": "Ada", "spans": [{"start": 0, "end": 3}]}, "span 1 is not [start, end, type]"),
        ({"text": "Ada", "spans": [[0, 4, "PER"]]}, "span 1, 0 to 4, is outside the text of 3 characters"),
        ({"text": "Ada", "spans": [[-1, 2, "PER"]]}, "span 1, -1 to 2, is outside the text of 3 characters"),
        ({"text": "Ada", "spans": [[2, 2, "PER"]]}, "span 1, 2 to 2, is empty"),
        ({"text": "a b", "spans": [[1, 2, "PER"]]}, "span 1, 1 to 2, is empty"),
        ({"text": "Ada Bo", "spans": [[0, 5, "PER"], [4, 6, "LOC"]]}, "spans overlap: 'Ada B' and 'Bo'"),
        (
            {"text": "Adabo", "spans": [[0, 3, "PER"], [3, 5, "PER"]]},
            "a span begins inside the word 'Adabo', which has one already",
        ),
    ],
)
def test_each_bad_row_of_spans_has_its_reason(row: dict[str, Any], reason: str) -> None:
    assert checked([row, {"text": "Ada", "spans": [[0, 3, "PER"]]}]).reasons.tolist() == [reason, ""]


def test_checked_rows_are_checked_again_alike_and_a_given_text_stays() -> None:
    rows = [{"text": "Paris, France", "tokens": ["Paris", ",", "France"], "tags": ["B-LOC", "O", "B-LOC"]}]
    first = checked(rows)
    assert first.rows.to_dict("records") == rows
    other = checked([rows[0] | {"text": "something else"}])
    assert other.rows["text"][0] == "Paris , France"
    assert other.notes == {"texts rebuilt from their tokens, because the given text differs": 1}


def test_word_tag_text_by_characters() -> None:
    lines = (
        "江/nr 泽民/nr 李/nr 鹏/nr 在/p [中央/n 电视台/n]nt 见/v 克林顿/nr",
        "欧阳/nr 海/nr 到/v 武汉市/ns 北京/ns",
        "他/r",
    )
    table = read_word_tag("\n".join(lines), "a.txt")
    rows = [
        dict(zip(table.columns, row, strict=True))
        for row in zip(*(table.values(i) for i in range(len(table.columns))), strict=True)
    ]
    names = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
    found = checked(rows, words="characters", entity_tags=names)
    assert found.rows["text"].tolist() == ["江泽民李鹏在中央电视台见克林顿", "欧阳海到武汉市北京", "他"]
    assert [json.loads(p["entities"]) for p in merged(found.rows, words="characters")] == [
        [
            {"start": 0, "end": 3, "type": "PER", "text": "江泽民"},
            {"start": 3, "end": 5, "type": "PER", "text": "李鹏"},
            {"start": 6, "end": 11, "type": "ORG", "text": "中央电视台"},
            {"start": 12, "end": 15, "type": "PER", "text": "克林顿"},
        ],
        [
            {"start": 0, "end": 3, "type": "PER", "text": "欧阳海"},
            {"start": 4, "end": 7, "type": "LOC", "text": "武汉市"},
            {"start": 7, "end": 9, "type": "LOC", "text": "北京"},
        ],
        [],
    ]
    reason = "tags of words; family.entity_tags has to say which are entities, such as {nr: PER}"
    assert set(checked(rows, words="characters").reasons) == {reason}
    odd = [rows[0] | {"compounds": ["nt"]}]
    said = "compounds are not a list of start, end (counted in words) and tag"
    assert checked(odd, entity_tags=names).reasons.tolist() == [said]


def merged(rows: pd.DataFrame, **options: object) -> list[dict[str, Any]]:
    """The answer of a model that is always right."""
    pieces = [[{"prediction": tags}] for tags in rows["tags"]]
    return family(**options).merge(rows, pieces, None, {})  # type: ignore[arg-type]


def test_windows_overlap_and_share_out_the_words() -> None:
    assert windows([1, 1, 2], 4, 1) == [(0, 3, range(3))]
    assert windows([], 4, 1) == [(0, 0, range(0))]
    # words 0-3, 2-5, 4-7: word 2 has one token after it in the first window and none before it in the second
    assert windows([1] * 8, 4, 2) == [(0, 4, range(0, 3)), (2, 6, range(3, 5)), (4, 8, range(5, 8))]
    assert [w[:2] for w in windows([3, 1, 4, 2], 4, 0)] == [(0, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize("stride", [0, 1, 3, 7, 100])
def test_every_word_counts_once_in_order(stride: int) -> None:
    random = np.random.default_rng(stride)
    for _ in range(50):
        lengths = random.integers(1, 8, 40).tolist()
        found = windows(lengths, 8, stride)
        assert [word for window in found for word in window.own] == list(range(40))
        for window, after in itertools.pairwise(found):
            assert sum(lengths[window.first : window.end]) <= 8
            assert after.end > window.end
            assert sum(lengths[after.first : window.end]) <= stride
        for window in found:
            assert set(window.own) <= set(range(window.first, window.end))


def base_of(folder: Path, tokenizer: str, texts: list[str], max_tokens: int) -> BaseModelInfo:
    architecture = {"wordpiece": "bert", "bpe": "roberta", "unigram": "xlm-roberta"}[tokenizer]
    made = tiny_model(folder, architecture, texts, tokenizer, vocab_size=300)
    return load_base(made, ModelParams(base=str(made), max_tokens=max_tokens))


def gold(columns: Columns, types: list[str], rows: int) -> list[list[dict[str, Any]]]:
    """What a model would predict that gets every label right."""
    names = tag_names(types)
    pieces: list[list[dict[str, Any]]] = [[] for _ in range(rows)]
    for row, labels, starts in zip(columns["row"], columns["labels"], columns["word_starts"], strict=True):
        assert [label >= 0 for label in labels] == [start == 1 for start in starts]
        pieces[row].append({"prediction": [names[label] for label in labels if label >= 0]})
    return pieces


@pytest.mark.parametrize("max_tokens", [8, 16, 64])
@pytest.mark.parametrize("texts", [ENGLISH, CHINESE], ids=["en", "zh"])
@pytest.mark.parametrize("tokenizer", ["wordpiece", "bpe", "unigram"])
def test_no_label_is_lost_in_encoding(tmp_path: Path, tokenizer: str, texts: list[str], max_tokens: int) -> None:
    base = base_of(tmp_path / "base", tokenizer, texts, max_tokens)
    spans = {
        ENGLISH[0]: [[0, 12, "PER"], [25, 31, "LOC"]],
        ENGLISH[1]: [[24, 29, "LOC"], [36, 43, "ORG"], [49, 53, "LOC"]],
        CHINESE[0]: [[0, 3, "PER"], [4, 6, "PER"], [9, 11, "LOC"], [14, 17, "PER"]],
        CHINESE[1]: [[0, 8, "ORG"], [11, 14, "PER"]],
    }
    # a word without any character that the tokenizer knows, and one that a window cannot hold
    rows = [{"text": text, "spans": spans[text]} for text in texts[:2]]
    rows += [{"text": "London \u200b Ö", "spans": [[7, 8, "LOC"]]}, {"text": "x" * 99, "spans": [[0, 99, "LOC"]]}]
    found, types = checked(rows).rows, ["LOC", "ORG", "PER"]
    columns = family().encode(found, base, types)
    assert max(len(ids) for ids in columns["input_ids"]) <= max_tokens
    pieces = gold(columns, types, len(rows))
    predictions = family().merge(found, pieces, base, {})
    assert [p["prediction"] for p in predictions] == found["tags"].tolist()
    assert [[[e["start"], e["end"], e["type"]] for e in json.loads(p["entities"])] for p in predictions] == [
        row["spans"] for row in rows
    ]
    statistics = row_statistics(family(), family().reference(found), predictions, types)
    assert metric_scores(family(), statistics)["f1"] == 1.0
    # bytes are never unknown: of the long word, pieces had to go
    assert columns["truncated"][-1] or tokenizer != "bpe"
    assert max_tokens == 8 or not any(
        cut for cut, row in zip(columns["truncated"], columns["row"], strict=True) if row < 2
    )


def test_a_word_without_tokens_is_an_unknown_one(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "wordpiece", ENGLISH, 64)
    columns = encode_words([[("Ada", True), ("\u200b", True), ("", True)]], [[1, 2, 3]], base, 0)
    ids, starts = columns["input_ids"][0], columns["word_starts"][0]
    assert [i for i, start in zip(ids, starts, strict=True) if start][1:] == [base.tokenizer.unk_token_id] * 2


def test_chinese_characters_have_no_blank_before_them(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "unigram", CHINESE, 64)
    frame = frame_of(base.tokenizer)
    row = pd.DataFrame({"text": [CHINESE[0]]})
    ids = family().encode(row, base, [])["input_ids"][0][len(frame.before) : -len(frame.after)]
    assert [str(t) for t in base.tokenizer.convert_ids_to_tokens(ids)] == list(CHINESE[0])


def test_words_between_blanks_are_written_as_in_running_text(tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", "bpe", ENGLISH, 64)
    ids = family().encode(pd.DataFrame({"text": ["Ada was born"]}), base, [])["input_ids"][0]
    assert ids == base.tokenizer(" Ada was born")["input_ids"]
    assert family().encode(pd.DataFrame({"text": ["Ada  was\nborn"]}), base, [])["input_ids"][0] == ids


def test_the_best_legal_sequence_is_that_of_trying_all() -> None:
    names = tag_names(["a", "b"])
    random = np.random.default_rng(0)
    for _ in range(30):
        scores = random.normal(size=(4, 5))

        def legal(path: tuple[int, ...]) -> bool:
            tags = ["O", *(names[i] for i in path)]
            return all(t[0] != "I" or before[2:] == t[2:] for before, t in itertools.pairwise(tags))

        paths = [path for path in itertools.product(range(5), repeat=4) if legal(path)]
        best = max(paths, key=lambda path: sum(scores[at, i] for at, i in enumerate(path)))
        assert tuple(viterbi_decode(scores)) == best
    assert viterbi_decode(np.zeros((0, 5))).tolist() == []


def test_tags_of_windows_are_joined_and_repaired() -> None:
    rows = pd.DataFrame({"text": ["Ada Lovelace saw Paris"]})
    pieces = [[{"prediction": ["B-PER", "I-PER"]}, {"prediction": ["I-LOC", "I-LOC"]}]]
    found = family().merge(rows, pieces, None, {})[0]  # type: ignore[arg-type]
    assert found["prediction"] == ["B-PER", "I-PER", "B-LOC", "I-LOC"]
    assert found["repaired_tags"] == 1
    assert json.loads(found["entities"])[1] == {"start": 13, "end": 22, "type": "LOC", "text": "saw Paris"}


def test_the_gazetteer_takes_the_longest_entity_and_its_usual_type() -> None:
    known = pd.DataFrame(
        {
            "tokens": [["New"], ["New", "York"], ["York"], ["York"], ["York"], ["Bo"], ["Bo"]],
            "tags": [["B-PER"], ["B-LOC", "I-LOC"], ["B-PER"], ["B-PER"], ["B-LOC"], ["B-b"], ["B-a"]],
        }
    )
    asked = pd.DataFrame({"tokens": [["in", "New", "York", "York", "new", "Bo"]], "tags": [["O"] * 6]})
    evidence = [BaselineInputs(rows, None) for rows in (known, asked)]  # type: ignore[arg-type]
    assert family().baselines(*evidence, 0) == {"gazetteer": [["O", "B-LOC", "I-LOC", "B-PER", "O", "B-a"]]}


def test_details_name_types_errors_and_mistakes(tmp_path: Path) -> None:
    rows = checked([{"text": "Ada saw Paris and Bo", "spans": [[0, 3, "PER"], [8, 13, "LOC"], [18, 20, "PER"]]}]).rows
    tags = ["B-PER", "O", "B-PER", "O", "O"]
    ours = family()
    assert ours.details is not None
    found = ours.details(rows, [{"prediction": tags, "repaired_tags": 2}], ["LOC", "PER"], tmp_path)
    assert found["per_type"]["PER"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2, "predicted": 2}
    assert {k: n for k, n in found["error_kinds"].items() if n} == {"exact": 1, "wrong_type": 1, "missed": 1}
    assert found["most_missed"] == [
        {"entity": "Bo", "type": "PER", "times": 1},
        {"entity": "Paris", "type": "LOC", "times": 1},
    ]
    assert found["most_wrongly_found"] == [{"entity": "Paris", "type": "PER", "times": 1}]
    assert found["repaired_predicted_tags"] == 2
    assert (tmp_path / "entities.png").stat().st_size > 1000


@pytest.mark.parametrize("architecture", ENCODERS)
def test_each_architecture_learns_tags(tmp_path: Path, architecture: str) -> None:
    made = tiny_model(tmp_path / "base", architecture, ENGLISH, vocab_size=300)
    params = ModelParams(base=str(made), max_tokens=24)
    base, types = load_base(made, params), ["LOC", "PER"]
    rows = checked(
        [
            {"text": ENGLISH[0], "spans": [[0, 12, "PER"], [25, 31, "LOC"]]},
            {"text": ENGLISH[1], "spans": [[24, 29, "LOC"]]},
        ]
    ).rows
    ours = family(decoding="argmax")
    torch.manual_seed(0)
    model = ours.load_model(made, params, types)
    assert model.config.id2label == {0: "O", 1: "B-LOC", 2: "I-LOC", 3: "B-PER", 4: "I-PER"}
    examples = Examples(token_table(ours.encode(rows, base, types)))
    batch = collate(examples.take(np.arange(len(examples))), base.pad_id, torch.device("cpu"))
    model.train(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(40):
        loss = ours.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    labels = batch.pop("labels")
    with torch.inference_mode():
        found = ours.predict(model, batch, base, types)
    right = [tag_names(types)[i] for i in labels[labels >= 0].tolist()]
    assert [tag for p in found for tag in p["prediction"]] == right


EMOJI = "😀👍 Today Alma Weber met Zoë in Lyon 🎉 again."


@pytest.mark.parametrize(("unit", "encoding", "size"), [("UTF-16 units", "utf-16-le", 2), ("bytes", "utf-8", 1)])
def test_offsets_in_other_units_are_found_out_by_the_text_of_the_spans(unit: str, encoding: str, size: int) -> None:
    def span(own: str, kind: str) -> dict[str, Any]:
        start = len(EMOJI[: EMOJI.index(own)].encode(encoding)) // size
        return {"start": start, "end": start + len(own.encode(encoding)) // size, "label": kind, "text": own.upper()}

    names = {"Alma Weber": "PER", "Zoë": "PER", "Lyon": "LOC"}
    given = [span(own, kind) for own, kind in names.items()]
    found = checked([{"text": EMOJI, "spans": given}, {"text": EMOJI, "spans": json.dumps(given)}])

    assert found.reasons.tolist() == ["", ""]
    assert found.notes == {f"spans whose offsets counted {unit}, now characters": 6}
    for tokens, tags in zip(found.rows["tokens"], found.rows["tags"], strict=True):
        assert [t for t, tag in zip(tokens, tags, strict=True) if tag != "O"] == ["Alma", "Weber", "Zoë", "Lyon"]


def test_offsets_that_lead_nowhere_near_their_text_are_rejected() -> None:
    span = {"start": 0, "end": 3, "label": "PER", "text": "Alma"}
    (reason,) = checked([{"text": "Today Alma met Bo.", "spans": [span]}]).reasons
    assert reason == "span 1, 0 to 3, is 'Tod', not 'Alma', in characters, UTF-16 units or bytes: mend its offsets"
