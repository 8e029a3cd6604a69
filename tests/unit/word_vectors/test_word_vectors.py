"""Words, vectors and what is measured on them: values by hand, and against gensim's own answers."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from apf_tasks.errors import DataError, ParamsError, UntrainableDataError
from apf_tasks.families.classification.baselines import averaged_vectors_logistic_regression
from apf_tasks.models.word2vec import new_model, table_of, train
from apf_tasks.models.word_vectors import (
    WordVectors,
    analogy,
    analogy_rank,
    answer,
    cosine_similarity,
    nearest,
    nearest_spelling,
    read_word_vectors,
    similarity,
    write_word_vectors,
)
from apf_tasks.params.data import DataParams
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import load_experiment
from apf_tasks.params.word_vectors import CorpusParams, VectorsParams, WordVectorParams
from apf_tasks.word_vectors import picture
from apf_tasks.word_vectors.artifacts import Corpus
from apf_tasks.word_vectors.corpus import read_corpus
from apf_tasks.word_vectors.held_out import NONE, HeldOutContexts, draw_test, frequency_accuracy, score_test
from apf_tasks.word_vectors.probes import frequent_words
from apf_tasks.word_vectors.training import train_vectors
from apf_tasks.words import listed_sentences, normalise, sentences
from tests.support.paths import PROJECT

SMOKE = PROJECT / "params" / "smoke"
FAST = VectorsParams(dimensions=16, window=3, min_count=2, epochs=10)


def plane(**words: tuple[float, float]) -> WordVectors:
    """Vectors in two dimensions; counts fall from first to last."""
    return WordVectors(
        tuple(words), np.arange(len(words), 0, -1), np.array(list(words.values()), dtype=np.float32).reshape(-1, 2)
    )


def write_params(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# words


def test_english_words() -> None:
    assert sentences("The DOG’s bone, 3 x-rays.\nNo 42? Well!", "spaced") == [
        ["the", "dog's", "bone", "x", "rays"],
        ["no"],
        ["well"],
    ]
    assert sentences("3.14 — (…)", "spaced") == []


def test_chinese_words() -> None:
    assert sentences("我爱北京天安门！ＢＢＣ播放，2008年。", "zh") == [
        ["我", "爱", "北京", "天安门"],
        ["bbc", "播放", "年"],
    ]


def test_words_given_as_lists_end_sentences_at_their_marks() -> None:
    given = ["迈向", "希望", "。", "New York", "（", "１２", "Ｘ", "！"]
    assert listed_sentences(given) == [["迈向", "希望"], ["new_york", "x"]]


def test_normalise() -> None:
    assert normalise("Ｗord’S") == "word's"


# similarity


def test_cosine_by_hand() -> None:
    assert cosine_similarity(np.array([3.0, 0.0]), np.array([2.0, 2.0])) == pytest.approx(math.sqrt(0.5))
    assert cosine_similarity(np.array([1.0, -2.0]), np.array([-2.0, 4.0])) == pytest.approx(-1)
    assert cosine_similarity(np.zeros(2), np.array([1.0, 1.0])) == 0


def test_nearest_by_hand() -> None:
    table = plane(east=(2, 0), north=(0, 1), northeast=(1, 1), west=(-3, 0))
    found = nearest(table, "East", 2)
    assert [n.word for n in found] == ["northeast", "north"]
    assert found[0].cosine == pytest.approx(math.sqrt(0.5))
    assert similarity(table, "east", "west") == pytest.approx(-1)
    assert [n.word for n in nearest(table, "east", 99)] == ["northeast", "north", "west"]


def test_analogy_by_hand() -> None:
    # b - a + c = (1, 0) - (0, 1) + (0, 1) at length 1: the word at (1, 0.1) is nearest to it
    table = plane(a=(0, 1), b=(1, 0), c=(0, 2), near=(1, 0.1), far=(-1, 0))
    assert [n.word for n in analogy(table, "a", "b", "c", 5)] == ["near", "far"]
    assert analogy_rank(table, "a", "b", "c", "near") == 1
    assert analogy_rank(table, "a", "b", "c", "far") == 2


def test_the_same_answers_as_gensim() -> None:
    from gensim.models import KeyedVectors

    random = np.random.default_rng(0)
    words = [f"w{i}" for i in range(50)]
    table = WordVectors(tuple(words), np.ones(50, dtype=np.int64), random.normal(size=(50, 8)).astype(np.float32))
    reference = KeyedVectors(8)
    reference.add_vectors(words, table.vectors)
    for mine, theirs in (
        (nearest(table, "w3", 10), reference.most_similar("w3", topn=10)),
        (analogy(table, "w1", "w2", "w3", 10), reference.most_similar(["w2", "w3"], ["w1"], topn=10)),
    ):
        assert [n.word for n in mine] == [word for word, _ in theirs]
        assert [n.cosine for n in mine] == pytest.approx([cosine for _, cosine in theirs], abs=1e-6)
    right = [word for word, _ in reference.most_similar(["w2", "w3"], ["w1"], topn=47)]
    assert [analogy_rank(table, "w1", "w2", "w3", word) for word in right] == list(range(1, 48))


def test_unknown_words() -> None:
    table = plane(camera=(1, 0), 酒店=(0, 1), 酒店前台=(1, 1))
    with pytest.raises(DataError, match=r"one of 3 known words, found 'Kamera'\. Did you mean 'camera'\?"):
        nearest(table, "Kamera", 1)
    with pytest.raises(DataError, match=r"found 'xyz'\. Ask for a word of the text"):
        similarity(table, "camera", "xyz")
    assert nearest_spelling("大酒店", table.words) == "酒店"
    assert nearest_spelling("前台", table.words) == "酒店前台"
    assert nearest_spelling("", table.words) is None


def test_answers_of_a_served_model() -> None:
    table = plane(east=(2, 0), north=(0, 1), northeast=(1, 1))
    both = answer(table, "east", "northeast", 1)
    assert json.loads(both["nearest"]) == [{"word": "northeast", "cosine": 0.707107}]
    assert both["similarity"] == pytest.approx(math.sqrt(0.5))
    assert both["problem"] == ""
    one = answer(table, "east", "", 1)
    assert math.isnan(one["similarity"])
    unknown = answer(table, "", "", 1)
    assert (unknown["nearest"], unknown["problem"]) == (
        "[]",
        "unknown word ''. Ask for a word of the text it was trained on.",
    )


def test_vectors_on_disk(tmp_path: Path) -> None:
    table = plane(东=(2, 0), north=(0, 1))
    write_word_vectors(tmp_path, table)
    again = read_word_vectors(tmp_path)
    assert again.words == ("东", "north")
    assert again.counts.tolist() == [2, 1]
    np.testing.assert_array_equal(again.vectors, table.vectors)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}, "nothing is pickled"


# the held-out question


def test_score_by_hand() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    outputs = np.array([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    # h = mean of words 0 and 1 = (0.5, 0.5): the target 1 scores 1.5; the noise 0 scores 1, the noise 1 is the target
    test = HeldOutContexts(np.array([[0, 1]]), np.array([1]), np.array([[0, 1]]))
    found = score_test(test, vectors, outputs)
    assert found is not None
    assert found.loss == pytest.approx(math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(1)))
    assert found.accuracy == 1
    assert frequency_accuracy(test, np.array([9, 5, 1])) == 0
    alone = HeldOutContexts(np.array([[2, NONE]]), np.array([2]), np.array([[0, 1]]))
    scores = score_test(alone, vectors, np.zeros((3, 2)))
    assert scores is not None
    assert scores == (pytest.approx(3 * math.log(2)), 0.5)
    nothing = draw_test([], np.ones(3), np.ones(3), FAST)
    assert score_test(nothing, vectors, outputs) is None
    assert frequency_accuracy(nothing, np.ones(3)) is None


def test_drawn_predictions() -> None:
    counts, keep = np.array([5, 5, 5, 5]), np.ones(4)
    sentence = [np.array([0, 1, 2])]
    settings = FAST.model_copy(update={"window": 1, "negative": 7})
    pairs = draw_test(sentence, counts, keep, settings)
    assert sorted(zip(pairs.inputs[:, 0].tolist(), pairs.targets.tolist(), strict=True)) == [
        (0, 1),
        (1, 0),
        (1, 2),
        (2, 1),
    ]
    assert pairs.noise.shape == (4, 7)
    bags = draw_test(sentence, counts, keep, settings.model_copy(update={"algorithm": "cbow"}))
    assert bags.inputs.tolist() == [[1, NONE], [0, 2], [1, NONE]]
    assert bags.targets.tolist() == [0, 1, 2]
    assert len(draw_test(sentence, counts, np.zeros(4), settings).targets) == 0


def test_noise_follows_the_counts() -> None:
    counts = np.array([16, 1])
    many = draw_test([np.zeros(3000, dtype=np.int64)], counts, np.ones(2), FAST)
    assert (many.noise == 0).mean() == pytest.approx(8 / 9, abs=0.01)  # 16 ** 0.75 = 8


# corpora


def corpus_of(folder: Path, rows: Sequence[dict[str, object]], **settings: object) -> Corpus:
    folder.mkdir(exist_ok=True)
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    data = DataParams.model_validate({"source": str(source), "max_rejected": 0.5} | settings)
    return read_corpus(folder, data, CorpusParams(held_out_fraction=0.3))


def test_a_corpus(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"Row {'x' * i} of many. The same sentence."} for i in range(20)]
    rows += [rows[0], {"text": "42"}, {"text": ""}, {"text": 7}]
    corpus = corpus_of(tmp_path, rows)
    assert (corpus.rows, corpus.repeated_rows, corpus.rejected_rows) == (21, 1, 3)
    assert corpus.language == "spaced"
    train_lines = (tmp_path / "sentences.txt").read_text().splitlines()
    held_out = (tmp_path / "held_out.txt").read_text().splitlines()
    assert (len(train_lines), len(held_out)) == (corpus.sentences, corpus.held_out_sentences)
    assert corpus.sentences + corpus.held_out_sentences == 40
    assert held_out
    assert not set(train_lines) & set(held_out), "equal sentences stand on one side"
    assert corpus.tokens == sum(len(line.split()) for line in train_lines + held_out)
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert reasons == ["no words", "no text", "neither a text nor a list of words"]


def test_the_order_of_rows_does_not_choose_them(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"sentence {chr(97 + i) * 3} here"} for i in range(20)]
    few = corpus_of(tmp_path / "a", rows, max_rows=5)
    other = corpus_of(tmp_path / "b", rows[::-1], max_rows=5)
    assert few.rows == 5

    def lines(folder: str) -> set[str]:
        files = (tmp_path / folder / f"{name}.txt" for name in ("sentences", "held_out"))
        return {line for file in files for line in file.read_text().splitlines()}

    assert lines("a") == lines("b")
    assert other.rows == 5


def test_chinese_is_seen_and_lists_are_words(tmp_path: Path) -> None:
    assert corpus_of(tmp_path, [{"text": "酒店很好"}]).language == "zh"
    lists = corpus_of(tmp_path, [{"text": ["江", "泽民", "。", "今天"]}, {"text": ["a", 3]}])
    assert lists.tokens == 3
    assert lists.rejected_rows == 1


def test_corpora_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"a column 'text', found the columns texte\. Write data.columns: {text: texte}"
    ):
        corpus_of(tmp_path, [{"texte": "a"}])
    with pytest.raises(DataError, match=r"at most 50.0% of them unusable .*found 2 of 3 \(no words: 2\)"):
        corpus_of(tmp_path, [{"text": "1"}, {"text": "2"}, {"text": "three"}])


# training


def texts(name: str) -> list[str]:
    lines = (SMOKE / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("algorithm", ["skip_gram", "cbow"])
def test_training_learns(tmp_path: Path, algorithm: str) -> None:
    rows: list[dict[str, object]] = [{"text": text} for text in texts("word-vectors")]
    (tmp_path / "out").mkdir()
    settings = VectorsParams.model_validate({"algorithm": algorithm, "dimensions": 32, "epochs": 40, "window": 4})
    settings = settings.model_copy(update={"learning_rate": 0.05})
    trained = train_vectors(tmp_path / "out", corpus_of(tmp_path, rows), settings)
    epochs = json.loads((tmp_path / "out" / "epochs.json").read_text())
    assert len(epochs) == 41
    assert epochs[0]["held_out/accuracy"] == 0.5
    assert 5.5 * math.log(2) < trained.first_loss <= 6 * math.log(2)
    assert trained.loss < 0.6 * trained.first_loss
    assert trained.held_out_accuracy == epochs[-1]["held_out/accuracy"]
    assert trained.held_out_accuracy > trained.frequency_accuracy + 0.1  # type: ignore[operator]
    table = read_word_vectors(tmp_path / "out")
    assert {n.word for n in nearest(table, "paris", 3)} == {"rome", "berlin", "madrid"}
    assert trained.known_tokens == table.counts.sum()


def test_too_few_words(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, [{"text": "one two three"}])
    with pytest.raises(
        UntrainableDataError, match=r"10 or more words that occur 5 times \(vectors.min_count\), found 0"
    ):
        train_vectors(tmp_path, corpus, VectorsParams())


def test_the_same_vectors_in_every_process() -> None:
    script = f"""
import hashlib, json
from apf_tasks.models.word2vec import new_model, table_of, train
from apf_tasks.params.word_vectors import VectorsParams
lines = [json.loads(line)["text"].split() for line in open({str(SMOKE / "data" / "word-vectors.jsonl")!r})]
model = new_model(lines, VectorsParams(dimensions=16, epochs=2))
train(model, lines)
print(hashlib.sha256(table_of(model).vectors.tobytes()).hexdigest())
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=PROJECT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert len(found.pop()) == 65


def test_another_seed_gives_other_vectors() -> None:
    lines = [text.split() for text in texts("word-vectors")]
    first, second = (new_model(lines, FAST.model_copy(update={"seed": seed})) for seed in (0, 1))
    for model in (first, second):
        train(model, lines)
    assert not np.array_equal(table_of(first).vectors, table_of(second).vectors), "the seed decides"


# probes


def test_frequent_words_are_neither_short_nor_everywhere() -> None:
    words = ("the", "movie", "not", "story", "plot", "a")
    table = WordVectors(words, np.array([9000, 5000, 9, 8, 7, 6]), np.eye(6, dtype=np.float32))
    assert frequent_words(table, 9, chinese=False) == list(words), "too few are left to choose among"
    many = WordVectors((*words, "actor"), np.array([90000, 5000, 9, 8, 7, 6, 5]), np.eye(7, dtype=np.float32))
    assert frequent_words(many, 9, chinese=False) == ["story", "plot", "actor"]
    assert frequent_words(many, 2, chinese=True) == ["not", "story"]


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_the_map(tmp_path: Path, method: str) -> None:
    unit = np.random.default_rng(0).normal(size=(12, 5))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    words = ["a$b", "<tag>", *"cdefghijkl"]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        font = picture.draw_map(tmp_path / folder, words, unit, ["c"], method, 0)  # type: ignore[arg-type]
        assert font == "DejaVu Sans"
    with (tmp_path / "one" / "map.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["word"] for row in rows] == words
    assert len({(row["x"], row["y"]) for row in rows}) == 12, "each word at a place of its own"
    drawing = (tmp_path / "one" / "map.svg").read_text()
    assert "a$b" in drawing.replace("\\", "")
    assert "&lt;tag&gt;" in drawing
    assert drawing == (tmp_path / "two" / "map.svg").read_text(), "the same vectors give the same bytes"
    assert (tmp_path / "one" / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_words_without_a_font_are_numbers(tmp_path: Path) -> None:
    rare = "\U000323af"  # of the newest block of Han, which hardly any font has
    assert picture.font_for(f"a{rare}") == ""
    unit = np.eye(4)
    assert picture.draw_map(tmp_path, ["a", "b", "c", rare], unit, [], "pca", 0) == ""
    assert rare in (tmp_path / "map.svg").read_text()


# params


def test_a_file_with_vectors_is_recognised(tmp_path: Path) -> None:
    path = write_params(tmp_path / "mine.yaml", "data: {source: x.jsonl}\nvectors: {epochs: 3}\n")
    params = load_experiment(path, ["vectors.dimensions=7", "probe.words=[a, b]"])
    assert isinstance(params, WordVectorParams)
    assert (params.name, params.model_name) == ("mine", "mine")
    assert (params.vectors.epochs, params.vectors.dimensions, params.probe.words) == (3, 7, ["a", "b"])
    assert isinstance(load_experiment(PROJECT / "params" / "sentiment.yaml"), Params)


@pytest.mark.parametrize("path", sorted(PROJECT.glob("params/**/word-vectors*.yaml")), ids=lambda path: path.name)
def test_shipped_files_are_valid(path: Path) -> None:
    assert isinstance(load_experiment(path), WordVectorParams)


def test_all_problems_at_once(tmp_path: Path) -> None:
    text = "data: {source: x, labels: {a: 1}}\nvectors: {epoch: 3, window: 0}\nprobes: {}\nprobe: {analogies: [[a]]}\n"
    with pytest.raises(ParamsError) as raised:
        load_experiment(write_params(tmp_path / "bad.yaml", text))
    said = str(raised.value)
    assert "5 problems" in said
    assert "data: word vectors do not use labels" in said
    assert "vectors.epoch: unknown key. Did you mean 'epochs'?" in said
    assert "vectors.window: input should be greater than 0, found 0" in said
    assert "probes: unknown key. Did you mean 'probe'?" in said
    assert "probe.analogies.0: list should have at least 4 items" in said


# the baseline


@pytest.mark.parametrize(("name", "kinds"), [("word-vectors", ("cat", "train")), ("word-vectors-zh", ("果", "地铁"))])
def test_averaged_vectors_tell_topics_apart(name: str, kinds: tuple[str, str]) -> None:
    chosen = [(text, kind) for text in texts(name) for kind in kinds if kind in text]
    rows = pd.DataFrame(chosen, columns=["text", "label"])
    train_rows, test_rows = rows.iloc[::2], rows.iloc[1::2]
    asked = train_rows["text"], train_rows["label"], test_rows["text"]
    found = averaged_vectors_logistic_regression(*asked, 0)
    assert np.mean(np.array(found) == test_rows["label"].to_numpy()) > 0.95
    assert found == averaged_vectors_logistic_regression(*asked, 0)


def test_averaged_vectors_of_next_to_nothing() -> None:
    assert averaged_vectors_logistic_regression(["!", "?", ";"], ["no", "no", "yes"], ["a"], 0) == ["no"]
    assert averaged_vectors_logistic_regression(["a", "b"], ["yes", "yes"], ["c", "d"], 0) == ["yes", "yes"]
    assert averaged_vectors_logistic_regression(["a b", "c d"], ["x", "y"], [], 0) == []
