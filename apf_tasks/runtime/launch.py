"""A function on several devices: torchrun starts a rank for each; what the first returns or raises comes back."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from apf_tasks.errors import InterruptedByUser, ParamsError, WorkerDiedError, WorkersError, fails_trial
from apf_tasks.params.train import RuntimeParams
from apf_tasks.runtime import _torchrun, ranks
from apf_tasks.runtime._nodes import heartbeat, next_call, rendezvous_folder, request_nodes, torchrun_options
from apf_tasks.runtime._rank import CALL, CALLER, MOMENT, PID, read_result
from apf_tasks.runtime.calls import Contexts, RemoteCall, Result
from apf_tasks.runtime.devices import choose_device
from apf_tasks.runtime.progress import ProgressUpdate, current_listener, read_moment, throttled_logger
from apf_tasks.runtime.signals import stop_signals

T = TypeVar("T")
logger = logging.getLogger("apf")

POLL_SECONDS = 0.3
"""How often the ranks are checked, in seconds."""


def run_on_ranks(runtime: RuntimeParams, function: Callable[..., T], *arguments: Any, within: Contexts = ()) -> T:
    """`function(*arguments)` in as many ranks as `runtime.devices` says; here, when that is one or this is a rank.

    Each rank works inside the contexts that `within` makes. A signal to stop is passed on, and the ranks leave a
    checkpoint; a second one kills them. Raises what the ranks raised; WorkerDiedError when one was killed,
    WorkersError when one ended otherwise, ParamsError when there are too few devices.
    """
    if runtime.ranks == 1 or ranks.current_ranks().count > 1:
        return function(*arguments)
    device = choose_device(runtime).type
    check_devices(runtime.devices, device)
    contexts: Contexts = (functools.partial(ranks.process_group, device), *within)
    call = RemoteCall(function, arguments, contexts, logger.getEffectiveLevel())
    with rendezvous_folder(runtime) as folder:
        (folder / CALL).write_bytes(pickle.dumps(call))
        wanted = request_nodes(folder, runtime, device)
        code = run_ranks(folder, torchrun_options(wanted, 0, runtime.devices, device), runtime.devices)
        outcome = _outcome(folder, runtime.ranks, code)
    if outcome.error is not None:
        raise outcome.error
    return outcome.value  # type: ignore[no-any-return]


def check_devices(wanted: int, device: str) -> None:
    """Raises ParamsError when this machine has not so many."""
    if device not in ranks.BACKENDS:
        raise ParamsError("runtime.devices", "one on this kind of device", f"{wanted} on {device}", "Remove it.")
    if device == "cuda" and (there := torch.cuda.device_count()) < wanted:
        raise ParamsError("runtime.devices", f"at most {there}, the CUDA devices here", str(wanted), "Write fewer.")


def run_ranks(folder: Path, options: list[str], devices: int, node: int = 0) -> int:
    """torchrun until it ends; whoever listens is told how far the first rank is. Returns its exit code."""
    command = [sys.executable, "-c", _torchrun.COMMAND, str(folder), *options]
    threads = str(max(1, torch.get_num_threads() // devices))
    said: ProgressUpdate | None = None
    listener, signals_sent = current_listener() or throttled_logger(), 0
    with _stderr_file(folder, node).open("w") as noise, stop_signals() as stopping:
        process = subprocess.Popen(
            command,
            env=os.environ | {"OMP_NUM_THREADS": threads, "TORCH_CPP_LOG_LEVEL": "ERROR", CALLER: str(os.getpid())},
            stdout=sys.stderr.fileno(),
            stderr=noise,
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
        )
        try:
            while process.poll() is None:
                if len(stopping) > signals_sent:
                    _stop(process, folder / f"{PID}-{node}", at_once=signals_sent > 0)
                    signals_sent = len(stopping)
                if node == 0:
                    heartbeat(folder)
                    if (update := read_moment(folder / MOMENT)) is not None and update != said:
                        listener(said := update)
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()  # nothing when it has ended
    return process.returncode


def _stderr_file(folder: Path, node: int) -> Path:
    """What the ranks of a machine write to stderr."""
    return folder / f"noise-{node}.txt"


def _stop(process: subprocess.Popen[bytes], pid: Path, at_once: bool) -> None:
    """Tell a rank, which tells the others. torchrun would kill them after half a minute: too soon for a large model."""
    if at_once or not pid.is_file():
        process.terminate()
    else:
        os.kill(int(pid.read_text()), signal.SIGTERM)


def _outcome(folder: Path, count: int, code: int) -> Result:
    """What so many ranks left: an error before a value, the first rank before the others."""
    found = [read_result(folder / f"{index}.pickle") for index in range(count)]
    outcomes = [outcome for outcome in found if outcome is not None]
    if failed := [outcome for outcome in outcomes if outcome.error is not None]:
        own = (outcome for outcome in failed if outcome.error is not None and fails_trial(outcome.error))
        return next(own, failed[0])  # what a rank met before what that made the others meet
    if code == 0 and found[0] is not None:
        return found[0]
    died = _death(_stderr_file(folder, 0).read_text(errors="replace"))
    where, expected, said = "runtime.devices", f"{count} ranks to finish", f"one that exited ({died})"
    if died.startswith(f"exit code -{signal.SIGKILL.value}"):
        do = "Possibly killed for lack of memory: lower train.micro_batch_tokens, or set runtime.shard: true."
        return Result(error=WorkerDiedError(where, expected, said, do))
    do = "What was trained is kept: the same command continues from the last checkpoint."
    return Result(error=WorkersError(where, expected, said, do))


def _death(noise: str) -> str:
    """The exit code of the first rank that died, in torchrun's words, and the last line that it wrote itself."""
    code = re.search(r"exitcode *: *(-?\d+)", noise.rpartition("Root Cause")[2])
    own = itertools.takewhile(lambda line: "torch/distributed/elastic" not in line, noise.splitlines())
    last = [line.strip() for line in own if line.strip()][-1:]
    return ": ".join([f"exit code {code[1]}" if code else "no exit code", *last])


def join_calls(patience: float = math.inf) -> int:
    """Help other machines with their calls, one after the other, until a signal, or `patience` seconds without one.

    Returns how many. The files of a call lie in the folder that the machines share. Raises ParamsError when a call
    wants more devices than there are here.
    """
    known: dict[Path, int] = {}
    joined = 0
    with stop_signals() as stopping:
        while (found := next_call(known, patience, stopping)) is not None:
            folder, wanted, node = found
            check_devices(wanted.devices, wanted.device)
            logger.info("joins %s as machine %d of %d", wanted.address, node + 1, wanted.nodes)
            options = torchrun_options(wanted, node, wanted.devices, wanted.device)
            code = run_ranks(folder, options, wanted.devices, node)
            logger.info("leaves %s%s", wanted.address, f": its ranks here ended with {code}" if code else "")
            joined += 1
    return joined


def check_caller() -> None:
    """Raises InterruptedByUser in a rank whose caller has died: another may already be at work in the same folder."""
    caller = os.environ.get(CALLER)
    if caller is not None and not psutil.pid_exists(int(caller)):
        raise InterruptedByUser("training", "a caller that waits for it", "a dead one", "The same command continues.")
