"""What dead processes leave: runs that seem to go on, records not delivered, moves of a champion cut short."""

from __future__ import annotations

from apf_tasks.params.base import Frozen
from apf_tasks.runs.reused import deliver_outbox
from apf_tasks.tracking import run_logger, tracker
from apf_tasks.tracking.champion import History, history, log_file
from apf_tasks.tracking.registry import names


class Reconciled(Frozen):
    """What was found, and put right where that was possible."""

    closed: tuple[str, ...]
    """Runs that are KILLED now: the process that worked on them is gone."""
    delivered: tuple[str, ...]
    """Runs whose records the tracker has now."""
    waiting: tuple[str, ...]
    """Runs with pending records: the tracker rejects them or does not know the run."""
    champions: tuple[History, ...]
    """Models with a log of promotions, after a move that was cut short is finished."""


def reconcile() -> Reconciled:
    """Put right what can be. Work that is under way is left alone. Raises RegistryError."""
    closed = run_logger.close_dead_runs(*tracker.experiment_ids())
    delivered = deliver_outbox()
    return Reconciled(
        closed=tuple(closed),
        delivered=tuple(run for run, arrived in delivered.items() if arrived),
        waiting=tuple(run for run, arrived in delivered.items() if not arrived),
        champions=tuple(history(name) for name in names() if log_file(name).is_file()),
    )
