"""Files of stored results flipped, cut, swapped and deleted: is it found, said and repaired?

Every damage is done to one file of a result, and the store is asked for the result in this process. Then several
results are damaged at once and the whole command is run: the outcome is the old one, and the run after it computes
nothing.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apf_tasks import stages
from apf_tasks.artifacts import Artifact
from apf_tasks.cache import store
from tests.campaign.common import SMOKE, Cases, Figure, Workbench, differences, document, last_line, undisturbed

WAYS = ("flip", "flip", "cut", "delete", "lengthen", "empty", "swap", "digit")
CASES, QUICK_CASES = 300, 40
RUNS, QUICK_RUNS = 3, 1
KINDS: dict[str, type[Artifact]] = {
    name: found.returns for name, found in vars(stages).items() if hasattr(found, "returns")
}


def figure(bench: Workbench, quick: bool, seed: int) -> Figure:
    """Of damages that were found, or did no harm, and of runs that repaired theirs."""
    dice, cases = random.Random(seed), Cases("damaged results were found and repaired, or unharmed")
    pristine, mlruns = undisturbed(bench, SMOKE), bench.folder / "mlruns"
    shutil.copytree(pristine, mlruns)
    files = sorted(
        path for path in (mlruns / "stages").glob("*/*/**/*") if path.is_file() and ".locks" not in path.parts
    )
    files = [path for path in files if path.relative_to(mlruns).parts[1] in KINDS]
    with believed_here(mlruns):
        for number in range(QUICK_CASES if quick else CASES):
            file = dice.choice(files)
            raw = file.read_bytes()
            said = damage(file, dice.choice(WAYS), files, dice)
            if said:
                cases.add(f"{number} {file.relative_to(mlruns / 'stages')}", [believed(mlruns, pristine, file)], said)
            shutil.copy2(pristine / file.relative_to(mlruns), file)
            assert file.read_bytes() == raw
    for number in range(QUICK_RUNS if quick else RUNS):
        cases.add(f"run {number}", repaired(bench, pristine, files, dice))
    return cases.figure


@contextmanager
def believed_here(mlruns: Path) -> Iterator[None]:
    """Within the block this process has that store, and does not say what is damaged."""
    before = os.environ.get("APF_MLRUNS")
    os.environ["APF_MLRUNS"] = str(mlruns)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        os.environ.pop("APF_MLRUNS")
        if before is not None:
            os.environ["APF_MLRUNS"] = before


def damage(file: Path, how: str, files: list[Path], dice: random.Random) -> str:
    """Do it; what was done, "" where it changes nothing."""
    raw = file.read_bytes()
    if how == "delete":
        file.unlink()
        return how
    at = dice.randrange(len(raw) or 1)
    digits = [i for i, byte in enumerate(raw) if 48 <= byte <= 57] or [0]
    digit = dice.choice(digits)
    ways = {
        "flip": raw[:at] + bytes([raw[at] ^ 1 << dice.randrange(8)]) + raw[at + 1 :] if raw else raw,
        "cut": raw[:at],
        "lengthen": raw + dice.randbytes(10),
        "empty": b"",
        "swap": dice.choice(files).read_bytes(),
        "digit": raw[:digit] + bytes([48 + (raw[digit] - 47) % 10]) + raw[digit + 1 :] if raw else raw,
    }
    if ways[how] == raw:
        return ""
    file.write_bytes(ways[how])
    return f"{how} at {at}" if how == "flip" else how


def believed(mlruns: Path, pristine: Path, file: Path) -> str:
    """What is wrong when a result with a damaged file is asked for: it is believed, or the store crashes."""
    stage, key = file.relative_to(mlruns / "stages").parts[:2]
    before = KINDS[stage].model_validate_json((pristine / "stages" / stage / key / store.HANDLE).read_text())
    try:
        handle = store.load(stage, key, KINDS[stage])
    except Exception as error:
        return f"the store crashes: {type(error).__name__}: {error}"
    if handle is None:
        return ""
    if file.name in (store.HANDLE, store.RECORD) and handle.model_dump(exclude={"path"}) == before.model_dump(
        exclude={"path"}
    ):
        return ""
    return f"{file.name} is believed"


def repaired(bench: Workbench, pristine: Path, files: list[Path], dice: random.Random) -> list[str]:
    """What is wrong after a run over several damaged results."""
    mlruns = bench.folder / "mlruns"
    shutil.rmtree(mlruns)
    shutil.copytree(pristine, mlruns)
    victims: dict[str, Path] = {}
    for file in dice.sample(files, len(files)):
        if file.name != store.HANDLE and len(victims) < 6:
            victims.setdefault(file.relative_to(mlruns / "stages").parts[0], file)
    damaged = {stage for stage, file in victims.items() if damage(file, dice.choice(WAYS[2:5]), files, dice)}
    ended = bench.run(mlruns, "run", SMOKE)
    if ended.returncode:
        return [f"the run fails: {last_line(ended)}"]
    unsaid = [stage for stage in damaged if f"{stage}: the stored result" not in ended.stdout]
    again = bench.run(mlruns, "run", SMOKE, "--json")
    if again.returncode:
        return [f"the next run fails: {last_line(again)}"]
    ran = [name for name, status in document(again)["stages"].items() if status == "ran"]
    wrong = [f"not said of {stage}" for stage in unsaid] + [f"the next run computes {name}" for name in ran]
    return wrong + [line for line in differences(pristine, mlruns) if not line.startswith("points")]
