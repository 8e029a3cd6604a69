"""A family of one's own, as its page shows it: in a folder, and in a package installed from a wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from apf_tasks.artifacts import EvaluationReport
from apf_tasks.cache.journal import journal
from apf_tasks.errors import ParamsError
from apf_tasks.params.experiment import Params
from apf_tasks.params.file import load_params
from apf_tasks.pipelines import pipeline
from apf_tasks.planning.plan import plan_stages
from apf_tasks.runs.recorded import recorded
from apf_tasks.tracking import tracker
from tests.support.paths import PROJECT
from tests.support.tiny import review_rows, write_jsonl

PAGE = (PROJECT / "docs" / "families" / "YOUR_OWN.md").read_text()
PARAMS, MODULE, COUNTING = re.findall(r"```(?:yaml|python)\n(.*?)```", PAGE, re.DOTALL)
SETUP = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "my-package"
version = "1.0"
[tool.setuptools]
packages = ["my_package"]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A person's folder with a package, rows and the params of the page."""
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "intents.py").write_text(MODULE)
    (package / "counting.py").write_text(COUNTING)
    write_jsonl(tmp_path / "rows.jsonl", review_rows(200))
    (tmp_path / "words.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


def runs_again(params: Params) -> list[str]:
    return [run.stage for run in plan_stages(params, pipeline) if run.status == "runs"]


def test_it_goes_through_the_whole_job_from_a_folder(project: Path) -> None:
    params = load_params("words.yaml")
    with journal() as done:
        recorded(params, pipeline)
    report = next(run.handle for run in done.stage_runs if isinstance(run.handle, EvaluationReport))
    assert report.scores["accuracy"] > report.baselines["always_long"]["accuracy"]
    assert "before_fine_tuning" in report.baselines
    assert tracker.client().get_registered_model("words").aliases
    assert runs_again(params) == []

    counting, intents = project / "my_package" / "counting.py", project / "my_package" / "intents.py"
    counting.write_text(COUNTING + "\n# a remark\n")
    assert runs_again(params) == []
    counting.write_text(COUNTING.replace("len(text.split())", "len(text.split()) + 1"))
    assert {"ingest", "tokenize", "train_model", "evaluate"} <= set(runs_again(params))
    counting.write_text(COUNTING)
    intents.write_text(MODULE.replace('return {"input_ids"', 'ids = list(ids)\n        return {"input_ids"'))
    assert {"tokenize", "train_model"} <= set(runs_again(params))


def test_the_logged_model_brings_its_family(project: Path) -> None:
    recorded(load_params("words.yaml", ["train.epochs=1"]), pipeline)
    script = (
        "import mlflow, pandas, sys\n"
        "model = mlflow.pyfunc.load_model('models:/words/1')\n"
        "print(model.predict(pandas.DataFrame({'text': ['a b c', 'd']}))['prediction'].tolist())\n"
        "print(sys.modules['my_package.intents'].__file__)\n"
    )
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracker.tracking_uri()}
    asked = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr
    answers, file = asked.stdout.splitlines()[-2:]
    assert set(eval(answers)) <= {"long", "short"}
    assert "artifacts" in file, "not the module that was logged with the model"


def test_it_works_installed_from_a_wheel(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "pyproject.toml").write_text(SETUP)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", "dist", "."]
    subprocess.run([*pip, *build], cwd=project, check=True, capture_output=True)
    wheel = next((project / "dist").glob("*.whl"))
    install = ["install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([*pip, *install], cwd=project, check=True, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("rows.jsonl", "words.yaml"):
        (project / name).rename(elsewhere / name)
    script = (
        "from apf_tasks.params.file import load_params\n"
        "from apf_tasks.pipelines import pipeline\n"
        "from apf_tasks.runs.recorded import recorded\n"
        "from apf_tasks.stages import ingest\n"
        "params = load_params('words.yaml', ['train.epochs=1'])\n"
        "print(recorded(params, pipeline).model_uri)\n"
        "print(ingest.record(params.data, params.family).libraries['my-package'])\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{PROJECT}"}
    asked = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.split()[-2:] == ["models:/words/1", "1.0"]
    monkeypatch.chdir(elsewhere)
    monkeypatch.syspath_prepend(str(site))
    from apf_tasks.evaluation.registered.model import load_registered

    answers = load_registered("models:/words/1").predict(pd.DataFrame({"text": ["one two", "three"]}))
    assert set(answers["prediction"]) <= {"long", "short"}


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (None, "expected a module in .* or an installed one, found none of that name"),
        (
            "import no_such_thing",
            "expected a module that can be imported, found ModuleNotFoundError: .*no_such_thing.*such a module has",
        ),
        ("x = 1", "expected PARAMS, a class derived from .*, found None"),
        (MODULE.split("def family")[0], r"expected family\(params\), .* found None"),
        (MODULE.replace("        loss=", "        los="), "expected an apf_tasks.family.Family, found .*'los'"),
        (MODULE.replace("    return Family(", "    return dict("), "expected an apf_tasks.family.Family, found dict"),
    ],
)
def test_mistakes_are_said_before_anything_runs(project: Path, module: str | None, said: str) -> None:
    file = project / "my_package" / "intents.py"
    if module is None:
        file.unlink()
    else:
        file.write_text(module)
    with pytest.raises(ParamsError, match=said):
        load_params("words.yaml")


def test_classification_is_another_name_for_sentiment(project: Path) -> None:
    text = PARAMS.replace("{name: my_package.intents, longest: 14}", "classification")
    (project / "reviews.yaml").write_text(text)
    assert load_params("reviews.yaml").family.name == "sentiment"
