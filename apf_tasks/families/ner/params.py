"""The options of named-entity recognition."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from apf_tasks.params.family import FamilyParams


class NerParams(FamilyParams):
    """Options of the named-entity family."""

    words: Literal["auto", "whitespace", "punctuation", "characters"] = "auto"
    """How words are separated, in training and serving: by white space; the same with every punctuation mark
    on its own; or every character. `auto`: characters in a text with 20 % or more Han and kana, else punctuation."""
    entity_tags: dict[str, str] = Field(default_factory=dict)
    """Type in the source -> entity type; types that are not listed are dropped. In word/tag text: part of speech ->
    entity type, such as {nr: PER, ns: LOC, nt: ORG}. Empty: types as they stand."""
    person_tags: list[str] = Field(default=["nr"])
    """In word/tag text: parts of speech of persons whose surname and given name are two words; they are joined."""
    tag_names: list[str] = Field(default_factory=list)
    """The tags in the order of their numbers, where the source has numbers."""
    stride: Annotated[int, Field(ge=0)] = 32
    """Tokens that neighbouring windows share when a row is longer than `model.max_tokens`."""
    decoding: Literal["viterbi", "argmax"] = "viterbi"
    """`viterbi`: the best legal sequence of tags. `argmax`: the best tag of each word; illegal tags are repaired."""
