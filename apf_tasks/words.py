"""Text -> sentences of words: Chinese by jieba, languages with spaces by their letters."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Literal

Language = Literal["zh", "spaced"]

_SENTENCE_END = re.compile(r"[。!?;\n]+|\.+(?=\s|$)")
"""In text after `normalise`, where full-width marks have become their plain forms."""
_LETTERS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
HAN_AND_KANA = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Of a character class: scripts without spaces between words. Korean has spaces."""
_HAN_AND_KANA = re.compile(f"[{HAN_AND_KANA}]")
UNSPACED_SHARE = 0.2


def is_unspaced(texts: Sequence[str]) -> bool:
    """Whether the texts are written in a script without spaces, by their share of Han and kana characters."""
    unspaced = sum(len(_HAN_AND_KANA.findall(text)) for text in texts)
    return unspaced >= UNSPACED_SHARE * max(1, sum(len("".join(text.split())) for text in texts))


def normalise(text: str) -> str:
    """Lower case, and one form for each character: NFKC turns full-width letters and ligatures into plain ones."""
    return unicodedata.normalize("NFKC", text).replace("’", "'").lower()


def sentences(text: str, language: Language) -> list[list[str]]:
    """The words of each sentence that has some, normalised; punctuation and numbers are no words."""
    split = jieba_cut() if language == "zh" else _LETTERS.findall
    found = ([w for w in map(str.strip, split(part)) if _is_word(w)] for part in _SENTENCE_END.split(normalise(text)))
    return [words for words in found if words]


def listed_sentences(words: Iterable[str]) -> list[list[str]]:
    """Words that were split before, as `sentences` gives them; spaces inside one become `_`."""
    found: list[list[str]] = [[]]
    for word in map(normalise, words):
        if _is_word(word):
            found[-1].append("_".join(word.split()))
        elif _SENTENCE_END.search(word):
            found.append([])
    return [sentence for sentence in found if sentence]


def _is_word(token: str) -> bool:
    return any(character.isalpha() for character in token)


@cache
def jieba_cut() -> Callable[[str], list[str]]:
    """jieba's cut, its dictionary read from the package: the cache it would read any user of /tmp can write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba 0.42 has escapes that Python deprecates, and asks for pkg_resources
        import jieba
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    cut: Callable[[str], list[str]] = tokenizer.lcut
    return cut
