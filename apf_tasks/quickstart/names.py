"""What people call columns and languages, and which language a text is in."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

LANGUAGES: dict[str, tuple[str, ...]] = {
    "en": ("english", "eng", "en_us", "en_gb", "英文", "英语"),
    "zh": ("chinese", "cn", "zho", "cmn", "chi", "zh_cn", "zh_hans", "zh_tw", "中文", "汉语"),
    "de": ("german", "deu", "ger", "de_de"),
    "fr": ("french", "fra", "fre", "fr_fr"),
    "es": ("spanish", "spa", "es_es"),
    "it": ("italian", "ita", "it_it"),
    "pt": ("portuguese", "por", "pt_br", "pt_pt"),
    "nl": ("dutch", "nld", "dut"),
    "ja": ("japanese", "jp", "jpn", "ja_jp", "日文", "日语"),
    "ko": ("korean", "kr", "kor", "韩文", "韩语"),
    "ru": ("russian", "rus", "ru_ru", "俄文", "俄语"),
    "ar": ("arabic", "ara", "阿拉伯语"),
}
"""Code -> other names of the language, the English one first."""
_SCRIPTS = {
    "ja": re.compile("[\u3040-\u30ff]"),
    "zh": re.compile("[\u3400-\u4dbf\u4e00-\u9fff]"),
    "ko": re.compile("[\uac00-\ud7af]"),
    "ru": re.compile("[\u0400-\u04ff]"),
    "ar": re.compile("[\u0600-\u06ff]"),
}
SCRIPT_SHARE = 0.2
"""Of the characters that are not blank; kana needs half of it, as Japanese is written with Han too."""
_FREQUENT = {
    "en": "the of and to is that it for was with this are you not be",
    "de": "der die und das ist nicht ein ich zu den mit auf eine sie dem",
    "fr": "le la les des est et une que pas dans pour vous je qui du",
    "es": "el la los que una por con para las del es está no se lo",
    "it": "il di che è non un per una sono con della gli più ho nel",
    "pt": "o que não uma os para com é do da em um você mais no",
    "nl": "de het een van en is niet dat op te ik zijn met voor die",
}

_TEXT = (
    *("text", "sentence", "review", "content", "comment", "body", "tweet", "message", "post", "document", "article"),
    *("abstract", "passage", "description", "utterance", "sentence1", "text1", "text_a", "premise", "question1"),
    *("context", "文本", "内容", "评论", "正文", "句子", "评价", "文章"),
)
USUAL: dict[str, tuple[str, ...]] = {
    "text": _TEXT,
    "text_pair": ("sentence2", "text2", "text_b", "hypothesis", "question2", "second_text", "文本2", "句子2"),
    "label": (
        *(
            "gold_label",
            "class",
            "category",
            "sentiment",
            "polarity",
            "target",
            "topic",
            "intent",
            "emotion",
            "labels",
            "tag",
        ),
        *("stars", "rating", "score", "is_duplicate", "标签", "类别", "分类", "情感", "星级", "评分"),
        *("等级", "评级", "类型", "意图", "极性", "倾向"),
    ),
    "labels": ("label", "tags", "categories", "topics", "genres", "classes", "emotions", "keywords", "标签", "类别"),
    "score": ("stars", "rating", "star_rating", "grade", "similarity", "评分", "星级", "分数", "打分"),
    "tokens": ("words", "token", "word", "text", "sentence", "词", "单词", "字"),
    "tags": ("ner_tags", "labels", "ner", "tag", "label", "entities", "pos", "bio", "标注", "标签"),
    "spans": ("entities", "entity", "label", "labels", "annotations", "ents", "实体"),
    "context": (
        "passage",
        "paragraph",
        "document",
        "article",
        "text",
        "content",
        "background",
        "上下文",
        "段落",
        "文章",
    ),
    "question": ("query", "prompt", "input", "问题", "提问"),
    "answer": ("answer_text", "answers", "response", "output", "答案", "回答"),
    "answers": ("answer", "答案"),
    "answer_start": ("start", "answer_offset", "offset"),
    "is_impossible": ("impossible", "unanswerable", "no_answer"),
    "document": (
        *("article", "text", "body", "content", "abstract", "source", "passage", "lead", "story", "dialogue", "report"),
        *("input", "description", "正文", "原文", "文章", "内容", "文本"),
    ),
    "summary": (
        *("highlights", "headline", "title", "tldr", "summaries", "abstract", "target", "output", "short"),
        *("摘要", "标题", "总结", "概要"),
    ),
    "source": ("src", "input", "original", "from", "msgid", "原文", "源文"),
    "target": ("tgt", "trg", "translation", "output", "reference", "to", "msgstr", "译文", "目标"),
    "prompt": ("instruction", "question", "input", "query", "user", "human", "指令", "问题", "提问", "输入"),
    "response": (
        *("output", "answer", "completion", "reply", "assistant", "chosen", "target"),
        *("回答", "答案", "回复", "输出"),
    ),
    "messages": ("conversation", "conversations", "dialog", "dialogue", "chat", "对话"),
    "system": ("system_prompt", "meta_instruction", "系统"),
    "input": ("query", "context", "inputs", "输入"),
    "history": ("历史",),
    "tools": ("functions", "工具"),
    "id": ("_id", "uid", "guid", "uuid", "row_id", "idx", "编号"),
}
"""The family's column -> names it often has, the surest first. Other columns go by their own name alone."""


def number_in(text: str) -> float | None:
    """The finite number that a text is."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def plain_name(name: str) -> str:
    """One spelling of a name: `Review-Text` and `reviewText` are `review_text`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip().removeprefix("\ufeff"))
    return re.sub(r"[\s_\-.]+", "_", spaced).strip("_").lower()


def language_named(name: str) -> str | None:
    """The code of the language that a column or a file's ending is called after."""
    plain = plain_name(name)
    return next((code for code, others in LANGUAGES.items() if plain == code or plain in others), None)


def spoken(language: str) -> str:
    """The English name of a language, or of two as `en-zh`; an unknown code stays."""
    return " and ".join(LANGUAGES.get(code, (code,))[0].capitalize() for code in language.split("-"))


def usual_names(column: str, options: dict[str, object]) -> tuple[str, ...]:
    """Other names of a family's column; a side of a translation may be called by its language."""
    language = str(options.get(f"{column}_language", column))
    return (*LANGUAGES.get(language, ()), *((language,) if language != column else ()), *USUAL.get(column, ()))


def language_of(texts: Sequence[str]) -> str:
    """The code of the language that most of the text is in, by script and by frequent words; English when in doubt."""
    text = " ".join(texts)
    total = max(1, len("".join(text.split())))
    for code, script in _SCRIPTS.items():
        if len(script.findall(text)) >= SCRIPT_SHARE / (2 if code == "ja" else 1) * total:
            return code
    words = Counter(re.findall(r"[^\W\d_]+", text.lower()))
    points = {code: sum(words[word] for word in frequent.split()) for code, frequent in _FREQUENT.items()}
    return max(points, key=lambda code: points[code])
