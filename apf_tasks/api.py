"""The public functions of `import apf_tasks`: plan, run, predict, compare, promote, export. No Prefect, no server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from apf_tasks.artifacts import Artifact, EvaluationReport, RegisteredModel, Selection
from apf_tasks.cache.journal import StageRun, journal
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import Experiment, origin
from apf_tasks.params.word_vectors import WordVectorParams
from apf_tasks.word_vectors.artifacts import VectorReport

if TYPE_CHECKING:
    from apf_tasks.evaluation.registered.model import Registered
    from apf_tasks.planning.estimates import Estimate
    from apf_tasks.promotion.gate import GateResult
    from apf_tasks.runs.compare import RunComparison
    from apf_tasks.serving.onnx.export import Exported

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class PlanRow:
    """One stage call of a plan."""

    stage: str
    label: str
    """What distinguishes calls of one stage: the searched values of a trial, the name of a split."""
    status: str
    """`reused` or `runs`."""
    reason: str
    """Why it runs; empty when its result is reused."""

    def __str__(self) -> str:
        return f"{self.stage} {self.label}".strip() + f": {self.status}" + (f", {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Plan:
    """The stage calls of an experiment in order. Iterating gives its rows."""

    experiment: Experiment
    stage_runs: tuple[StageRun, ...]

    @property
    def rows(self) -> tuple[PlanRow, ...]:
        """Stage, label, status and reason of every call."""
        return tuple(PlanRow(call.stage, call.label, call.status, call.reason) for call in self.stage_runs)

    def __iter__(self) -> Iterator[PlanRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.stage_runs)

    def __str__(self) -> str:
        return "\n".join(map(str, self.rows))

    def estimate(self) -> Estimate | None:
        """Optimizer steps, memory and disk of the trainings; None when none would run, and for word vectors."""
        from apf_tasks.planning.estimates import estimate

        return estimate(self.stage_runs, self.experiment) if isinstance(self.experiment, Params) else None


@dataclass(frozen=True)
class Run:
    """What a finished run gave."""

    run_id: str
    """Of the MLflow run that records it."""
    stage_runs: tuple[StageRun, ...]

    @property
    def model(self) -> RegisteredModel:
        """The registered version: `.model_uri`, `.aliases`."""
        return self._only(RegisteredModel)

    @property
    def report(self) -> EvaluationReport | VectorReport:
        """The test: `.scores`, `.intervals`, `.baselines`, `.verdict`; of word vectors the probes and analogies."""
        return self._find(VectorReport) or self._only(EvaluationReport)

    @property
    def selection(self) -> Selection | None:
        """The candidates on validation, the chosen one first; None for word vectors, which have none."""
        return self._find(Selection)

    def _find(self, kind: type[A]) -> A | None:
        handles = (call.handle for call in reversed(self.stage_runs))
        return next((handle for handle in handles if isinstance(handle, kind)), None)

    def _only(self, kind: type[A]) -> A:
        found = self._find(kind)
        assert found is not None  # a run that did not get there has raised
        return found


def load_params(params: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment in a params file, with dotted overrides such as `{"train.learning_rate": 1e-4}`.

    `params` is a path, the bare name of a file in params/, or `runs:/ID`. Raises ParamsError naming every problem.
    """
    from apf_tasks.runs.experiments import load_experiment

    return load_experiment(str(params), overrides)


def plan(params: Experiment | str | Path) -> Plan:
    """What `run` would reuse and what it would compute, and why. Runs nothing. `params`: as of `run`."""
    from apf_tasks.pipelines import pipeline_of_either_kind
    from apf_tasks.planning.plan import plan_stages

    experiment = _experiment(params)
    return Plan(experiment, tuple(plan_stages(experiment, pipeline_of_either_kind)))


def run(params: Experiment | str | Path, refresh: bool = False) -> Run:
    """Run an experiment as `apf run` does, in this process: reuse stored results, compute the rest, record, register.

    `params`: what `load_params` gives, or what it takes. With `refresh` every stage runs, stored or not. Trials run one
    after another. Raises an ApfError.
    """
    from apf_tasks.planning.plan import forget

    experiment = _experiment(params)
    if refresh:
        forget(plan(experiment).stage_runs)
    params_file = "" if isinstance(params, (Params, WordVectorParams)) else origin(str(params))
    with journal() as done:
        before = len(done.stage_runs)
        _record(experiment, params_file)
    return Run(done.run_id, tuple(done.stage_runs[before:]))


def load_model(uri: str) -> Registered:
    """A registered version by `models:/NAME@ALIAS` or `models:/NAME/VERSION`; `.predict(frame)` gives a frame.

    A row out for every row in, in their order. Raises RegistryError.
    """
    from apf_tasks.evaluation.registered.model import load_registered

    return load_registered(uri)


def compare(runs: Sequence[str], metric: str | None = None, picture: str | Path | None = None) -> RunComparison:
    """Compare runs on the test rows that all of them have: which is reliably better?

    `runs` are run ids, unique prefixes of them, or registered models; `picture` is where to draw it. Raises DataError,
    RegistryError.
    """
    from apf_tasks.runs.compare import compare_runs

    return compare_runs(runs, metric, None if picture is None else Path(picture))


def promote(name: str, version: int | None = None, why: str = "", dry_run: bool = False) -> GateResult:
    """Make a version (default: the challenger) the champion if it passes the gate of its params, as `apf promote` does.

    With `dry_run` it is judged alone. Sends no notifications. Raises PromotionRefusedError when a rule fails.
    """
    from apf_tasks.promotion.promote import gate_and_promote, to_promote

    version, params = to_promote(name, version, why, dry_run)
    return gate_and_promote(name, version, params, why, dry_run)


def export(uri: str, folder: str | Path, force: bool = False) -> Exported:
    """Export a registered model to ONNX, if its outputs then equal those of the original. Raises ExportError.

    `force` replaces an older export in the folder.
    """
    from apf_tasks.serving.onnx.export import export_registered

    return export_registered(uri, Path(folder), force)


def _experiment(params: Experiment | str | Path) -> Experiment:
    return params if isinstance(params, (Params, WordVectorParams)) else load_params(params)


def _record(experiment: Experiment, params_file: str) -> None:
    """Run the stages in one MLflow run."""
    from apf_tasks.pipelines import pipeline, word_vector_pipeline
    from apf_tasks.promotion.warm_start import as_tag, pin_aliases, resolve_aliases
    from apf_tasks.runs.recorded import recorded

    if isinstance(experiment, WordVectorParams):
        recorded(experiment, word_vector_pipeline, params_file)
        return
    resolved = resolve_aliases(experiment)
    recorded(pin_aliases(experiment, resolved), pipeline, params_file, tags=as_tag(resolved))
