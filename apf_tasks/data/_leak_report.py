"""The leak report: what left the splits, or was kept together, and why, for a person to read.

N rows. A `because` array holds for each row the row that it left for, or -1 where it stayed, (N,).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from apf_tasks.data._near_duplicates import Indices, Mask, Shingles

EXAMPLES = 20
"""How many of each kind are shown."""
SHOWN_CHARACTERS = 300

Section = dict[str, Any]


def conflict_section(rows: pd.DataFrame, texts: pd.Series[str], conflicts: Mask, label_column: str | None) -> Section:
    """Texts that occur with several labels: every row with them, and which of these left."""
    examples = []
    for text in texts[conflicts].unique()[:EXAMPLES] if label_column else ():
        same = rows[texts == text]
        marked = zip(same["row_id"], same["role"], same[label_column], conflicts[same.index], strict=True)
        described = [{"row": _plain(r), "role": s, "label": str(v), "left_out": bool(c)} for r, s, v, c in marked]
        examples.append({"text": _cut(text), "rows": described[:EXAMPLES]})
    resolved = "Rows removed because the same text has different labels; published test rows that agree stay."
    return {"count": int(conflicts.sum()), "meaning": resolved, "examples": examples}


def duplicate_section(rows: pd.DataFrame, texts: pd.Series[str], because: Indices) -> Section:
    """Rows whose text is already there: the row that left and the one that stays."""
    chosen = np.flatnonzero(because >= 0)[:EXAMPLES]
    ids = rows["row_id"]
    examples = [{"text": _cut(texts[i]), "left_out": _plain(ids[i]), "kept": _plain(ids[because[i]])} for i in chosen]
    resolved = "Rows removed because an equal text is kept (test before validation before train, then the first)."
    return {"count": int((because >= 0).sum()), "meaning": resolved, "examples": examples}


def near_duplicate_section(
    rows: pd.DataFrame, texts: pd.Series[str], because: Indices, shingles: Shingles | None
) -> Section:
    """Rows too similar to one on a more important side: both, and how similar they are."""
    chosen = np.flatnonzero(because >= 0)[:EXAMPLES]
    similarity = shingles.jaccard(chosen, because[chosen]) if shingles else np.zeros(len(chosen))
    examples = [
        {"left_out": _row(rows, texts, i), "kept": _row(rows, texts, because[i]), "similarity": round(float(s), 3)}
        for i, s in zip(chosen, similarity, strict=True)
    ]
    resolved = "Rows removed because a near-duplicate is in a more important split (Jaccard of shingles)."
    return {"count": int((because >= 0).sum()), "meaning": resolved, "examples": examples}


def group_section(rows: pd.DataFrame, texts: pd.Series[str], group: Indices) -> Section:
    """Groups of near-duplicates, the biggest first, before any row of them left."""
    sizes = np.bincount(group)
    biggest = [g for g in np.argsort(-sizes, kind="stable")[:EXAMPLES] if sizes[g] > 1]
    examples = []
    for number in biggest:
        shown = np.flatnonzero(group == number)[:3]
        examples.append({"rows": int(sizes[number]), "shown": [_row(rows, texts, i) for i in shown]})
    resolved = "Groups of near-duplicates, before rows were removed. No two similar rows are in different splits."
    return {"count": int((sizes > 1).sum()), "meaning": resolved, "examples": examples}


def _row(rows: pd.DataFrame, texts: pd.Series[str], i: int) -> Section:
    return {"row": _plain(rows["row_id"].iloc[i]), "role": str(rows["role"].iloc[i]), "text": _cut(texts.iloc[i])}


def _plain(row_id: Any) -> Any:
    return row_id.item() if isinstance(row_id, np.generic) else row_id


def _cut(text: str) -> str:
    """The text as it was compared, shortened."""
    text = text.replace("\x1f", " | ")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
