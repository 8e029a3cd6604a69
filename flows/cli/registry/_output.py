"""What `apf registry` and `apf promote` print."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from apf_tasks.artifacts import DriftReport
from apf_tasks.promotion.gate import GateResult
from apf_tasks.tracking.champion import History, Promotion
from apf_tasks.tracking.registry import Version

if TYPE_CHECKING:
    from apf_tasks.runs.reconcile import Reconciled
    from apf_tasks.serving.onnx.export import Exported
    from flows.retrain import RetrainResult

NOTHING = "–"


def print_models(out: Console, models: dict[str, list[Version]]) -> None:
    """One line per registered model: its newest version, and where the aliases are."""
    table = _table("model", "versions", "champion", "challenger", "previous", "test of the champion")
    for name, versions in models.items():
        at = {alias: version for version in versions for alias in version.aliases}
        shown = [str(at[alias].number) if alias in at else NOTHING for alias in ("champion", "challenger", "previous")]
        score = at["champion"].score if "champion" in at else NOTHING
        table.add_row(escape(name), str(len(versions)), *shown, escape(score))
    out.print(table)


def print_versions(out: Console, name: str, versions: list[Version]) -> None:
    """One line per version, the newest first."""
    table = _table("version", "registered", "aliases", "on test", "gate", "run", title=name)
    for version in versions:
        table.add_row(
            str(version.number),
            f"{version.registered:%Y-%m-%d %H:%M}",
            ", ".join(version.aliases) or NOTHING,
            escape(version.score),
            escape(version.gate or NOTHING),
            version.run_id[:8],
        )
    out.print(table)


def print_history(out: Console, found: History) -> None:
    """One line per move of the champion, oldest first; then whether the registry says the same."""
    table = _table("when", "", "champion", "who", "why", title=found.name)
    for move in found.moves:
        before = NOTHING if move.before is None else str(move.before)
        table.add_row(
            f"{datetime.fromisoformat(move.at).astimezone():%Y-%m-%d %H:%M}",
            "rolled back" if move.kind == "rollback" else "promoted",
            f"{before} → {move.version}",
            escape(move.who),
            escape(move.why),
        )
    out.print(table)
    if found.moves and not found.agrees:
        out.print(
            f"The registry has {_version(found.champion)} as champion, this log ends with {_version(found.expected)}: "
            "it was changed elsewhere, or the registry lost it. --replay restores it from the log.",
            style="yellow",
        )


def print_verdict(out: Console, verdict: GateResult) -> None:
    """Every rule, what it needed and what was found."""
    table = _table("rule", "", "needed", "found", title=f"{verdict.challenger} against {verdict.champion or 'none'}")
    for rule in verdict.rules:
        table.add_row(
            rule.name, "[green]passed[/]" if rule.passed else "[red]failed[/]", escape(rule.needed), escape(rule.found)
        )
    out.print(table)
    if verdict.trade_off:
        parts = _table("gains and losses on", "rows", "by", "champion", "challenger", "")
        for part in verdict.trade_off:
            scores = (f"{part.champion:.4f}", f"{part.challenger:.4f}")
            parts.add_row(part.name, f"{part.rows:,}", part.metric, *scores, "reliable" if part.reliable else "")
        out.print(parts)


def print_retrained(out: Console, found: RetrainResult) -> None:
    """What was new, what the gate said, and what came of it."""
    if found.verdict is not None:
        print_verdict(out, found.verdict)
    version = "" if found.version is None else f", version {found.version}"
    out.print(f"{found.outcome}{version}: {found.reason}", markup=False, highlight=False)


def print_drift(out: Console, report: DriftReport) -> None:
    """Each measure with its test; then one sentence."""
    table = _table("of", "PSI", "two-sample p", title=f"{report.rows_new:,} new rows against {report.rows_then:,}")
    for name in dict.fromkeys((*report.psi, *report.p_values)):
        psi, p = report.psi.get(name), report.p_values.get(name)
        table.add_row(name, NOTHING if psi is None else f"{psi:.3f}", NOTHING if p is None else f"{p:.2g}")
    if report.auc is not None:
        out.print(table)
        out.print(
            f"A classifier separates new texts from old ones with an AUC of {report.auc:.2f} (0.5: chance). "
            f"{report.unknown_words:.1%} of the new words do not occur in the old rows."
        )
    if report.embeddings is not None:
        said = f"The champion's embeddings of both are {report.embeddings:.3f} apart (energy distance, 0 to 1)."
        out.print(said, highlight=False)
    out.print(report.describe(), markup=False, highlight=False, style="yellow" if report.drifted else "")


def print_move(out: Console, move: Promotion) -> None:
    """One sentence."""
    before = "" if move.before is None else f", in place of version {move.before}"
    out.print(f"{move.name}: version {move.version} is the champion now{before}.", markup=False, highlight=False)


def print_exported(out: Console, found: Exported) -> None:
    """Size and time of both; then how alike they are."""
    replay = found.replay
    table = _table("", "original", "ONNX", "ratio", title=f"{found.model} → {found.folder}")
    sizes, times = (found.bytes_original, found.bytes_exported), (replay.seconds_original, replay.seconds_exported)
    table.add_row("size", *(f"{size / 2**20:,.2f} MiB" for size in sizes), f"{sizes[1] / sizes[0]:.2f}")
    table.add_row("time per row", *(f"{1000 * seconds:,.2f} ms" for seconds in times), f"{replay.time_ratio:.2f}")
    out.print(table)
    out.print(
        f"{replay.alike} of {replay.rows} rows answered alike, {replay.same_decisions:,} of {replay.decisions:,} "
        f"decisions; largest difference {replay.largest_difference:.1e} of outputs up to {replay.largest_output:.2g}, "
        f"in {replay.shapes} shapes of a batch.",
        style="" if (replay.alike, replay.same_decisions) == (replay.rows, replay.decisions) else "yellow",
    )


def print_reconciled(out: Console, found: Reconciled) -> None:
    """What was put right, one line for each kind; then what could not be."""
    from apf_tasks.tracking.outbox import folder

    table = _table("", "", "")
    table.show_header = False
    table.add_row("runs closed", str(len(found.closed)), ", ".join(run[:8] for run in found.closed))
    table.add_row("runs delivered", str(len(found.delivered)), ", ".join(run[:8] for run in found.delivered))
    for history in found.champions:
        champion = f"champion {_version(history.champion)}"
        table.add_row(
            escape(history.name), "", champion if history.agrees else f"[yellow]{champion}, its log differs[/]"
        )
    out.print(table)
    for run in found.waiting:
        name = f"{run}.json" if (folder() / f"{run}.json").is_file() else f"{run}.jsonl"
        line = f"mlruns/outbox/{name} is pending: this tracker rejects it or does not know the run."
        out.print(line, style="yellow", markup=False, highlight=False)


def as_document(value: Any) -> str:
    """Models, versions, a history or a move as JSON."""
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value.model_dump(mode="json")


def _version(number: int | None) -> str:
    return "no version" if number is None else f"version {number}"


def _table(*columns: str, title: str = "") -> Table:
    folded = [Column(name, overflow="fold") for name in columns]  # a name that is cut cannot be copied
    return Table(*folded, title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
