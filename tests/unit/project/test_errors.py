"""Which errors are the failure of a trial, and which are faults of what is around it."""

from __future__ import annotations

import errno
import pickle

import pytest
import torch
from mlflow.exceptions import MlflowException

from apf_tasks import errors
from apf_tasks.errors import ApfError, fails_trial, is_system_error, portable

OF_TRIALS = {
    "UntrainableError",
    "UntrainableDataError",
    "DivergedError",
    "ModelError",
    "MissingModelError",
    "UnsuitableParamsError",
    "WorkerDiedError",
}


def test_every_error_of_ours_is_told_apart() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ApfError)]
    assert {kind.__name__ for kind in kinds if fails_trial(kind("where", "this", "that", "Do it."))} == OF_TRIALS
    assert len(kinds) > 2 * len(OF_TRIALS) - 1
    for kind in kinds:
        assert kind.__name__ in str(errors.__doc__)


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("no answer"),
        TypeError("a bug"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ConnectionError("refused"),
        KeyError("memory"),
    ],
)
def test_faults_of_the_surroundings_fail_no_trial(error: Exception) -> None:
    assert not fails_trial(error), "it ends the search"
    assert not fails_trial(portable(error)), "it ends the search, come from a worker too"


def test_want_of_memory_fails_a_trial_and_stays_that_on_the_way_from_a_worker() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    for error in (caught.value, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()):
        assert fails_trial(error), repr(error)
        assert fails_trial(pickle.loads(pickle.dumps(portable(error)))), f"from a worker: {error!r}"


def test_a_file_that_cannot_be_read_is_told_from_one_that_is_no_model() -> None:
    said = OSError("tiny does not appear to have a file named config.json")
    said.__context__ = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert not is_system_error(said), "a file that is not there is no trouble of the system"
    said.__context__ = OSError(errno.EIO, "Input/output error")
    assert is_system_error(said), "a file that cannot be read is"
    assert not is_system_error(ValueError("no"))
