"""Generated text against rouge-score, sacreBLEU and values by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from apf_tasks.errors import DataError
from apf_tasks.evaluation.metrics.bootstrap import bootstrap
from apf_tasks.evaluation.metrics.generation import (
    CharacterTokenizer,
    Language,
    length_and_copy,
    rouge_scores,
    rouge_statistics,
    signatures,
    translation_scores,
    translation_statistics,
)

ENGLISH = [
    "The cat sat on the mat.",
    "Heavy rain fell in the north, and two rivers rose.",
    "It is 3.5 metres long; nobody knows why!",
    "Yes.",
    "A bank in London lent the money to a friend of the owner.",
]
CHINESE = [
    "今天天气很好。",
    "他在2008年去了北京大学。",
    "这家银行借钱给店主的朋友！",
    "是。",
    "两条河的水位上升了，没有人受伤。",
]


def rouge_of(references: list[str], predictions: list[str], language: Language) -> dict[str, float]:
    scores = rouge_scores(rouge_statistics(references, predictions, language).sum(axis=0))
    return {name: float(score) for name, score in scores.items()}


def scrambled(texts: list[str], seed: int) -> list[str]:
    """Each text with some words (characters when there are no spaces) left out or changed places."""
    random = np.random.default_rng(seed)
    found = []
    for text in texts:
        parts = text.split(" ") if " " in text else list(text)
        kept = [part for part in parts if random.random() > 0.2]
        if len(kept) > 2 and random.random() < 0.5:
            kept[0], kept[-1] = kept[-1], kept[0]
        found.append((" " if " " in text else "").join(kept))
    return found


def test_rouge_by_hand() -> None:
    # words: the cat sat | the cat ran; shared words 2 of 3, pairs 1 of 2, subsequence 2 of 3
    assert rouge_of(["the cat sat"], ["the cat ran"], "en") == pytest.approx(
        {"rouge1": 2 / 3, "rouge2": 1 / 2, "rougeL": 2 / 3, "rougeLsum": 2 / 3}
    )
    # characters: 北京天气 | 北京下雨
    assert rouge_of(["北京天气"], ["北京下雨"], "zh") == pytest.approx(
        {"rouge1": 1 / 2, "rouge2": 1 / 3, "rougeL": 1 / 2, "rougeLsum": 1 / 2}
    )


def test_rouge_is_that_of_the_library() -> None:
    predictions = scrambled(ENGLISH, 0)
    for stemmer in (True, False):
        scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stemmer)
        expected = [scorer.score(r, p) for r, p in zip(ENGLISH, predictions, strict=True)]
        found = rouge_statistics(ENGLISH, predictions, "en", use_stemmer=stemmer)
        for at, name in enumerate(("rouge1", "rouge2", "rougeL"), start=1):
            assert found[:, at].tolist() == [scores[name].fmeasure for scores in expected]
    assert rouge_statistics(["connections"], ["connected"], "en")[0, 1] == 1
    assert rouge_statistics(["connections"], ["connected"], "en", use_stemmer=False)[0, 1] == 0


@pytest.mark.parametrize("text", ["One two. Three four.", "One two.\nThree four.", 'One two!" Three four?'])
def test_sentences_in_another_order_cost_rouge_l_only(text: str) -> None:
    scores = rouge_of(["Three four. One two."], [text], "en")
    assert (scores["rougeL"], scores["rougeLsum"]) == (0.5, 1)


def test_chinese_sentences() -> None:
    scores = rouge_of(["雨很大。河水上涨！"], ["“河水上涨。”雨很大。"], "zh")
    assert scores["rouge1"] == scores["rougeLsum"] == 1
    assert scores["rougeL"] == pytest.approx(4 / 7)


def test_chinese_tokens() -> None:
    assert CharacterTokenizer().tokenize("在２００８年，iPhone 4S café 很贵！") == [
        *("在", "2008", "年", "iphone", "4s", "café", "很", "贵")
    ]


@pytest.mark.parametrize(("texts", "language"), [(ENGLISH, "en"), (CHINESE, "zh")])
def test_rouge_of_perfect_shuffled_and_empty(texts: list[str], language: Language) -> None:
    assert rouge_of(texts[:3], texts[:3], language) == dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), 1)
    assert rouge_of(texts, texts[1:] + texts[:1], language)["rouge1"] < 0.4
    assert rouge_statistics(texts[:2], ["", texts[1]], language)[:, 1:].tolist() == [[0] * 4, [1] * 4]


def by_sacrebleu(references: list[list[str]], predictions: list[str], language: str) -> dict[str, float]:
    most = max(map(len, references))
    columns = [[r[at] if at < len(r) else None for r in references] for at in range(most)]
    tokenize = "zh" if language == "zh" else "13a"
    return {
        "bleu": sacrebleu.corpus_bleu(predictions, columns, tokenize=tokenize).score,
        "chrf": sacrebleu.corpus_chrf(predictions, columns).score,
    }


def translation_of(references: list[list[str]], predictions: list[str], language: str) -> dict[str, float]:
    sums = translation_statistics(references, predictions, language).sum(axis=0)
    return {name: float(score) for name, score in translation_scores(sums, language).items()}


CASES: dict[str, tuple[list[list[str]], list[str], str]] = {
    "english": ([[text] for text in ENGLISH], scrambled(ENGLISH, 1), "en"),
    "chinese": ([[text] for text in CHINESE], scrambled(CHINESE, 1), "zh"),
    "perfect": ([[text] for text in ENGLISH], ENGLISH, "de"),
    "several references": ([[t, *scrambled([t], 3)] for t in ENGLISH], scrambled(ENGLISH, 4), "en"),
    "some have two": ([[t, "cat"][: 1 + i % 2] for i, t in enumerate(ENGLISH)], scrambled(ENGLISH, 4), "en"),
    "empty predictions": ([[text] for text in ENGLISH], ["", *scrambled(ENGLISH, 5)[1:4], ""], "en"),
    "all empty": ([[text] for text in ENGLISH], [""] * len(ENGLISH), "en"),
    "empty reference": ([[""], ["a b c d e"]], ["x", "a b c d f"], "en"),
    "too short for 4-grams": ([["a b c"]], ["a b c"], "en"),
    "no 4-gram matches": ([["a b c x d e f"]], ["a b c y d e f"], "en"),
    "no 3-gram matches": ([["a b x c d y e f"]], ["a b z c d w e f"], "en"),
    "nothing matches": ([["a b c d e"]], ["v w x y z"], "en"),
    "longer than the reference": ([["a b c d e"]], ["a b c d e f g h"], "en"),
}


@pytest.mark.parametrize("case", CASES)
def test_bleu_and_chrf_are_those_of_sacrebleu(case: str) -> None:
    references, predictions, language = CASES[case]
    found = translation_of(references, predictions, language)
    assert found == pytest.approx(by_sacrebleu(references, predictions, language), abs=1e-9, rel=0)


def test_a_resample_is_scored_as_sacrebleu_would() -> None:
    references, predictions, language = CASES["empty predictions"]
    statistics = translation_statistics(references, predictions, language)
    drawn = np.random.default_rng(0).integers(0, len(predictions), (20, len(predictions)))
    found = translation_scores(statistics[drawn].sum(axis=1))
    for at, rows in enumerate(drawn):
        expected = by_sacrebleu([references[r] for r in rows], [predictions[r] for r in rows], language)
        assert {name: values[at] for name, values in found.items()} == pytest.approx(expected, abs=1e-9, rel=0)


def test_perfect_translation_is_best_and_shuffled_is_worse() -> None:
    references = [[text] for text in ENGLISH]
    assert translation_of(references, ENGLISH, "en") == pytest.approx({"bleu": 100, "chrf": 100})
    shuffled = translation_of(references, ENGLISH[1:] + ENGLISH[:1], "en")
    assert shuffled["bleu"] < 20
    assert shuffled["chrf"] < 40


def test_intervals_take_no_time() -> None:
    references, predictions, language = CASES["english"]
    statistics = np.tile(translation_statistics(references, predictions, language), (200, 1))  # 1,000 rows
    started = time.process_time()  # of the processor: what else runs does not count
    low, high = bootstrap(statistics, translation_scores, 2000, 0, 0.95)["bleu"]
    assert time.process_time() - started < 5
    assert low < translation_of(references, predictions, language)["bleu"] < high


def test_every_row_has_a_reference() -> None:
    with pytest.raises(DataError, match="at least one reference per row, found none in row 2"):
        translation_statistics([["a"], []], ["a", "b"], "en")
    with pytest.raises(DataError, match="expected 1 predictions, found 2"):
        translation_statistics([["a"]], ["a", "b"], "en")
    assert translation_statistics([], [], "en").shape == (0, 28)


@pytest.mark.parametrize(("code", "tokenizer"), [("zh", "zh"), ("zh-CN", "zh"), ("zho_Hans", "zh"), ("fr", "13a")])
def test_signatures(code: str, tokenizer: str) -> None:
    version = sacrebleu.__version__
    assert signatures(code) == {
        "bleu": f"nrefs:1|case:mixed|eff:no|tok:{tokenizer}|smooth:exp|version:{version}",
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}",
    }
    assert signatures(code, references_per_row=2)["bleu"].startswith("nrefs:2|")


def test_length_and_copy_by_hand() -> None:
    # source: a b c d e f; predicted: a b c x and nothing: unigrams 3 of 4, pairs 2 of 3, no 4-gram
    assert length_and_copy(["a b c d e f", "g h"], ["a b c x", ""], "en") == pytest.approx(
        {"mean_tokens": 2, "compression": 2, "copied_1": 3 / 4, "copied_2": 2 / 3, "copied_4": 0}
    )
    assert length_and_copy(["北京的天气很好。"], ["天气很好！"], "zh") == pytest.approx(
        {"mean_tokens": 4, "compression": 7 / 4, "copied_1": 1, "copied_2": 1, "copied_4": 1}
    )
    assert set(length_and_copy(["a"], [""], "en").values()) == {0}


SCRIPTS = {
    "Russian": ("школа видит дом", "школа видит лес", 2 / 3),
    "Greek": ("το σπίτι είναι μικρό", "το σπίτι είναι μεγάλο", 3 / 4),
    "Arabic": ("المدرسة ترى البيت", "المدرسة ترى الغابة", 2 / 3),
    "Hindi": ("यह घर छोटा है", "यह घर बड़ा है", 3 / 4),
    "Korean": ("학교가 집을 본다", "학교가 숲을 본다", 2 / 3),
    "Thai": ("บ้าน", "บาน", 2 / 3),
    "Japanese": ("学校が見る", "学校は見る", 4 / 5),
    "Chinese": ("北京天气好", "北京天气坏", 4 / 5),
    "no ASCII letter": ("Ê Ő", "Ê Ő", 1),
    "mixed": ("Apple 公司 connections", "apple 公司 connected", 1),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_rouge_knows_the_script_of_the_reference(script: str) -> None:
    reference, prediction, rouge1 = SCRIPTS[script]
    found = rouge_statistics([reference, reference], [reference, prediction], "en")

    assert found[0, [1, 3, 4]].tolist() == [1, 1, 1], "a text with itself"
    assert found[1, 1] == pytest.approx(rouge1)
    assert rouge_statistics([reference], ["xyz"], "en")[0, 1] == 0
    assert length_and_copy([reference], [reference], "en")["copied_1"] == 1


def test_accents_alone_leave_rouge_as_it_is_published() -> None:
    text = ["The café in Málaga opened."]
    scorer = RougeScorer(["rouge1"], use_stemmer=True)
    expected = scorer.score(text[0], "The cafe opened.")["rouge1"].fmeasure
    assert rouge_statistics(text, ["The cafe opened."], "en")[0, 1] == pytest.approx(expected)


@pytest.mark.parametrize(("code", "cut"), [("ja", "char"), ("th_TH", "char"), ("ru", "13a"), ("zh", "zh")])
def test_bleu_is_cut_where_the_script_has_no_blanks(code: str, cut: str) -> None:
    assert f"tok:{cut}|" in signatures(code)["bleu"]
