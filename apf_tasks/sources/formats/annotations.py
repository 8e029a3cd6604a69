"""Rows as tools for annotation export them: Label Studio, Prodigy, spaCy, and the nested spans of CLUENER."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Row = dict[str, Any]
NOT_ANNOTATED = "a task without an annotation"


def plain_row(value: Any) -> tuple[Any, str]:
    """(row with `spans`, `label` or `labels` in plain form, "" or why it is no row); other values as they are.

    Spans become {"start", "end", "label"}, with "text" where it is known; their end is exclusive.
    """
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict):
        return _spacy(value[0], value[1]), ""
    if not isinstance(value, dict):
        return value, ""
    reader = next((read for fits, read in READERS if fits(value)), None)
    return (value, "") if reader is None else reader(value)


def _spacy(text: str, found: Mapping[str, Any]) -> Row:
    """A text with `entities` and `cats`, as spaCy's training examples have them."""
    row: Row = {"text": text}
    if "entities" in found:
        row["spans"] = [dict(zip(("start", "end", "label"), span, strict=False)) for span in found["entities"]]
    if isinstance(cats := found.get("cats"), dict):
        row["labels"] = [name for name, share in cats.items() if share >= 0.5]
    return row


def _label_studio(task: Row) -> tuple[Row, str]:
    """The first annotation that was not cancelled, of a task in the full JSON export."""
    made = task.get("annotations") or task.get("completions") or []
    done = [one for one in made if not one.get("was_cancelled")]
    row = {**task["data"], "id": task.get("id")}
    if not done:
        return row, NOT_ANNOTATED
    return row | _results(done[0].get("result", [])), ""


def _results(results: list[Any]) -> Row:
    spans = [_span(one["value"]) for one in results if "start" in one.get("value", {})]
    chosen = [choice for one in results for choice in one.get("value", {}).get("choices", [])]
    if chosen:
        return {"label": chosen[0]} if len(chosen) == 1 else {"labels": chosen}
    return {"spans": spans}


def _span(value: Mapping[str, Any]) -> Row:
    """One span; the type stands in `labels`, or under the name of the kind of tag."""
    kinds = next((value[key] for key in ("labels", "hypertextlabels", "label") if value.get(key)), None)
    kind = kinds[0] if isinstance(kinds, list) else kinds
    return {"start": value["start"], "end": value["end"], "label": kind} | (
        {"text": value["text"]} if isinstance(value.get("text"), str) else {}
    )


def _label_studio_min(task: Row) -> tuple[Row, str]:
    name = next(key for key, cell in task.items() if _are_studio_spans(cell))
    return {key: cell for key, cell in task.items() if key != name} | {"spans": list(map(_span, task[name]))}, ""


def _are_studio_spans(cell: Any) -> bool:
    return (
        isinstance(cell, list)
        and bool(cell)
        and all(isinstance(one, dict) and {"start", "end", "labels"} <= one.keys() for one in cell)
    )


def _prodigy(task: Row) -> tuple[Row, str]:
    answer = task.get("answer", "accept")
    if answer != "accept":
        return task, f"an annotation that was not accepted ({answer})"
    row = {key: cell for key, cell in task.items() if key != "answer"}
    chosen = row.get("accept")
    if isinstance(chosen, list):
        row |= {"label": chosen[0]} if len(chosen) == 1 else {"labels": chosen}
    if isinstance(row.get("spans"), list) or "tokens" in row:
        row.pop("tokens", None)  # where the spans lie: they have characters, too
        row["spans"] = row.get("spans") or []
    return row, ""


def _cluener(row: Row) -> tuple[Row, str]:
    """`label` as {type: {text: [[first, last]]}}, the last character included (Xu et al. 2020, arXiv:2001.04351)."""
    spans = [
        {"start": first, "end": last + 1, "label": kind, "text": text}
        for kind, texts in row["label"].items()
        for text, places in texts.items()
        for first, last in places
    ]
    return {key: cell for key, cell in row.items() if key != "label"} | {"spans": spans}, ""


def _is_cluener(row: Row) -> bool:
    kinds = row.get("label")
    return (
        isinstance(kinds, dict)
        and bool(kinds)
        and all(isinstance(texts, dict) and all(map(_are_places, texts.values())) for texts in kinds.values())
    )


def _are_places(places: Any) -> bool:
    return isinstance(places, list) and all(
        isinstance(place, list) and len(place) == 2 and all(isinstance(at, int) for at in place) for place in places
    )


def _is_label_studio(row: Row) -> bool:
    done = row.get("annotations", row.get("completions"))
    return isinstance(row.get("data"), dict) and isinstance(done, list) and all(isinstance(one, dict) for one in done)


READERS: tuple[tuple[Callable[[Row], bool], Callable[[Row], tuple[Row, str]]], ...] = (
    (_is_label_studio, _label_studio),
    (lambda row: {"_input_hash", "_task_hash"} <= row.keys(), _prodigy),
    (_is_cluener, _cluener),
    (lambda row: any(map(_are_studio_spans, row.values())), _label_studio_min),
)
"""What a row looks like, and what reads it."""
