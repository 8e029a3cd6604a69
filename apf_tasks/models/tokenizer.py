"""A tokenizer trained on the texts of the train split, with the special tokens of an architecture.

The same texts give the same bytes. The trainers of `tokenizers` promise that for BPE alone: WordPiece breaks ties by
ids that depend on the order of a hash map, and Unigram adds up floats in the order of its threads. So WordPiece is
handed its alphabet in order, and Unigram is trained by sentencepiece on one thread.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apf_tasks.errors import UntrainableDataError
from apf_tasks.params.architectures import Convention, convention
from apf_tasks.params.model import TokenizerParams

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS: dict[Convention, dict[str, str]] = {
    "bert": {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    "roberta": {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "cls_token": "<s>",
        "sep_token": "</s>",
    },
    "t5": {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    # padding of its own: where it is the end of text too, a model never learns to stop
    "causal": {
        "pad_token": "<|pad|>",
        "eos_token": "<|endoftext|>",
        "bos_token": "<|endoftext|>",
        "unk_token": "<unk>",
    },
}
"""Role -> token; ids in this order, from 0."""
TEMPLATES: dict[Convention, tuple[str, str]] = {
    "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
    "t5": ("$A </s>", "$A </s> $B </s>"),
}
"""What surrounds one text, and two."""
SENTINELS = [f"<extra_id_{i}>" for i in range(100)]
"""Stand for the gaps that T5 is pre-trained to fill (Raffel et al., JMLR 2020, section 3.1.4)."""
PREFIX = "##"


def train_tokenizer(texts: Sequence[str], params: TokenizerParams, architecture: str) -> PreTrainedTokenizerFast:
    """A tokenizer of `params.train` for this architecture. Raises UntrainableDataError when the texts are empty."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    if not any(text.strip() for text in texts):
        raise UntrainableDataError("tokenizer.train", "texts to train on", "none", "Check the rows of the train split.")
    kind = convention(architecture)
    names = dict(SPECIAL_TOKENS[kind])
    if params.train == "bpe" and kind == "causal":
        del names["unk_token"]  # no byte is unknown
    special = list(dict.fromkeys(names.values()))
    sentinels = SENTINELS if architecture in ("t5", "mt5", "umt5") else []
    size = params.vocab_size - len(sentinels)
    train = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}[params.train or "bpe"]
    tokenizer = train(texts, special, size, params.lowercase)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special + sentinels])
    tokenizer.post_processor = _around(kind, tokenizer, special, params.train == "bpe")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        additional_special_tokens=sentinels or None,
        clean_up_tokenization_spaces=False,
        **names,
    )


def _around(kind: Convention, tokenizer: Tokenizer, special: list[str], on_bytes: bool) -> Any:
    """The special tokens around a text; where a token begins with its space, offsets begin after it."""
    from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing

    steps: list[Any] = [ByteLevel(trim_offsets=True)] if on_bytes else []
    if kind in TEMPLATES:
        single, pair = TEMPLATES[kind]
        ids = [(token, tokenizer.token_to_id(token)) for token in special]
        steps.append(TemplateProcessing(single=single, pair=pair, special_tokens=ids))
    return Sequence(steps)


def _wordpiece(texts: Sequence[str], special: list[str], size: int, lowercase: bool) -> Tokenizer:
    """WordPiece as BERT uses it: words and punctuation apart, each Chinese character a word."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.trainers import WordPieceTrainer

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=PREFIX)
    words: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    counts: Counter[str] = Counter()
    for word, count in words.items():
        counts.update(dict.fromkeys(word, count))
    room = max(1, (size - len(special)) // 3)  # a character takes two places, at the start and within a word
    alphabet = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:room])
    inside = sorted({c for word in words for c in word[1:]} & set(alphabet))
    trainer = WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*special, *(PREFIX + c for c in inside)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    unknown = next(token for token in special if "unk" in token.lower())
    trained = Tokenizer(models.WordPiece(tokenizer.get_vocab(), unk_token=unknown, continuing_subword_prefix=PREFIX))
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        setattr(trained, part, getattr(tokenizer, part))
    return trained


def _bpe(texts: Sequence[str], special: list[str], size: int, lowercase: bool) -> Tokenizer:
    """BPE over bytes as GPT-2 uses it: every text is known, Chinese characters are up to three tokens until merged."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _unigram(texts: Sequence[str], special: list[str], size: int, lowercase: bool) -> Tokenizer:
    """Unigram over text with visible spaces, as T5 uses it: needs no words, so Chinese is as good as English."""
    import sentencepiece
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    fold = [normalizers.Lowercase()] if lowercase else []
    # NFC where T5 has NFKC: that would turn the full-width punctuation of Chinese into ASCII
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    normalizer = normalizers.Sequence([normalizers.NFC(), *fold, *spaces])
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts if (line := normalizer.normalize_str(text))),
        model_writer=written,
        model_type="unigram",
        vocab_size=size - len(special) + 1,
        hard_vocab_limit=False,
        character_coverage=0.9995,
        normalization_rule_name="identity",
        max_sentence_length=1 << 24,
        bos_id=-1,
        eos_id=-1,
        unk_id=0,
        num_threads=1,
        minloglevel=2,
    )
    found = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    pieces = [(found.id_to_piece(i), found.get_score(i)) for i in range(1, found.vocab_size())]
    unknown = next(i for i, token in enumerate(special) if "unk" in token.lower())
    tokenizer = Tokenizer(models.Unigram([*((token, 0.0) for token in special), *pieces], unk_id=unknown))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer
