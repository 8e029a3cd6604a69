"""A picture of word vectors: frequent words on a plane."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE, DRAWING, POINTS = "map.png", "map.svg", "map.csv"
PERPLEXITY = 15
"""t-SNE's number of neighbours that count; more blur small groups."""
FALLBACK = "DejaVu Sans"
"""Comes with matplotlib."""
GROUPS = 10
"""Colours: as many groups of near words, found in all dimensions, not on the plane."""


def draw_map(
    out: Path, words: Sequence[str], unit: np.ndarray, marked: Iterable[str], method: Literal["tsne", "pca"], seed: int
) -> str:
    """Write `map.png`, `map.svg` and `map.csv` (number, word, x, y, group). Returns the font of the words.

    `unit` (N, D) are the words' vectors at length 1; `marked` words are bold. Words that no installed font can show
    stand in the PNG as their numbers, and the result is "". The SVG holds all words as text: whoever looks at it brings
    the font.
    """
    points, groups = place(unit, method, seed), _groups(unit, seed)
    with (out / POINTS).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["number", "word", "x", "y", "group"])
        for number, (word, (x, y), group) in enumerate(zip(words, points, groups, strict=True), start=1):
            rows.writerow([number, word, f"{x:.4f}", f"{y:.4f}", group])
    font = font_for("".join(words))
    shown = list(words) if font else [w if w.isascii() else str(i) for i, w in enumerate(words, start=1)]
    title = f"{len(words)} frequent words by {'t-SNE' if method == 'tsne' else 'PCA'}"
    note = "" if font else "No installed font has all characters: the numbers refer to map.csv; map.svg has the words."
    bold = [word in set(marked) for word in words]
    _figure(points, groups, shown, bold, font or FALLBACK, title, note).savefig(out / PICTURE, dpi=150)
    _save_text(_figure(points, groups, list(words), bold, "sans-serif", title, ""), out / DRAWING)
    return font


def _save_text(figure: Figure, path: Path) -> None:
    """An SVG with its text as text, and the same ids each time."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "apf"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # measured for the layout, but drawn by whoever looks
        figure.savefig(path, metadata={"Date": None})


def place(unit: np.ndarray, method: Literal["tsne", "pca"], seed: int) -> np.ndarray:
    """(N, D) → (N, 2)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if method == "pca":
        return np.asarray(PCA(2, svd_solver="full").fit_transform(unit))
    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    # euclidean distances of vectors of length 1 have the order of their cosines
    return np.asarray(TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(unit))


def _groups(unit: np.ndarray, seed: int) -> list[int]:
    from sklearn.cluster import KMeans

    found = KMeans(min(GROUPS, len(unit)), n_init=4, random_state=seed).fit_predict(unit)
    return [int(group) for group in found]


def font_for(characters: str) -> str:
    """An installed font with a glyph for every character, "" when there is none. matplotlib's own comes first."""
    from matplotlib import font_manager, ft2font

    codes = {ord(character) for character in characters}
    plain = [e for e in font_manager.fontManager.ttflist if e.style == "normal" and "Last Resort" not in e.name]
    for entry in sorted(plain, key=lambda e: (e.name != FALLBACK, "Sans" not in e.name, e.name, e.fname)):
        try:
            glyphs = ft2font.FT2Font(entry.fname).get_charmap()
        except (RuntimeError, OSError):  # a damaged or vanished file
            continue
        if codes <= glyphs.keys():
            return str(entry.name)
    return ""


def _figure(
    points: np.ndarray,
    groups: Sequence[int],
    shown: Sequence[str],
    bold: Sequence[bool],
    font: str,
    title: str,
    note: str,
) -> Figure:
    import matplotlib
    from matplotlib.figure import Figure

    colours = matplotlib.colormaps["tab10"]
    figure = Figure(figsize=(13, 9.5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(points[:, 0], points[:, 1], s=14, c=[colours(group % 10) for group in groups])
    for (x, y), group, text, strong in zip(points, groups, shown, bold, strict=True):
        axes.annotate(
            text.replace("$", r"\$"),
            (x, y),
            xytext=(3, 2),
            textcoords="offset points",
            fontfamily=[font, FALLBACK] if font != "sans-serif" else ["sans-serif"],
            fontsize=11 if strong else 9,
            fontweight="bold" if strong else "normal",
            color=colours(group % 10),
        )
    axes.set(xticks=[], yticks=[], title=f"{title}\n{note}" if note else title)
    axes.margins(0.06)
    return figure
