"""Every error apf raises on purpose.

    ApfError
    ├── ParamsError                the params file cannot be read, or says something that is not allowed
    ├── SourceError                a data or model source cannot be reached, verified or unpacked
    ├── DataError                  the rows cannot be used
    ├── StoreError                 the stage store cannot be read or written (no space, no permission)
    ├── UntrainableError           these values cannot be trained, whatever the surroundings: all that a search outlives
    │   ├── UntrainableDataError   the rows can be read, but no model can learn from them (a DataError too)
    │   ├── DivergedError          the loss or a gradient stopped being a finite number
    │   ├── ModelError             the pretrained model cannot be loaded, or does not fit the data
    │   ├── MissingModelError      the model to start from does not exist (a SourceError too)
    │   ├── UnsuitableParamsError  a value does not go together with the model or with another value (a ParamsError too)
    │   └── WorkerDiedError        the process that trained was killed, as it is for want of memory
    ├── InterruptedByUser          asked to stop: a checkpoint is on disk, the same command continues from it
    ├── WorkersError               the processes that should train cannot be had, or ended otherwise than by their work
    ├── RegistryError              the tracker refuses, or a model does not replay as it was trained
    │   └── PromotionRefusedError  the champion stays: a rule of the gate failed, or the champion is another one by now
    └── ExportError                a model cannot be exported, or what was exported does not answer as the model does

An ApfError says four things: where it happened, what was expected, what was found, and what to do next.
"""

from __future__ import annotations

import errno
import pickle


class ApfError(Exception):
    """Something a person can act on. All four parts are plain sentences or fragments."""

    def __init__(self, where: str, expected: str, found: str, do: str) -> None:
        super().__init__(where, expected, found, do)  # all four in args: pickles as it is
        self.where, self.expected, self.found, self.do = where, expected, found, do

    def __str__(self) -> str:
        end = "" if self.found.endswith("\n") else ". "
        return f"{self.where}: expected {self.expected}, found {self.found}{end}{self.do}"


class ParamsError(ApfError):
    """The params file cannot be read, or says something that is not allowed."""


class SourceError(ApfError):
    """A data or model source cannot be reached, verified or unpacked."""


class DataError(ApfError):
    """The rows cannot be used."""


class UntrainableError(ApfError):
    """These values cannot be trained, whatever the surroundings: one of many trials may fail so; the others go on."""


class UntrainableDataError(DataError, UntrainableError):
    """The rows can be read, but no model can learn from them."""


class ModelError(UntrainableError):
    """The pretrained model cannot be loaded, or does not fit the data."""


class MissingModelError(SourceError, UntrainableError):
    """The model to start from does not exist."""


class UnsuitableParamsError(ParamsError, UntrainableError):
    """A value does not go together with the model or with another value."""


class WorkerDiedError(UntrainableError):
    """The process that trained was killed, as it is for want of memory."""


class StoreError(ApfError):
    """The stage store cannot be read or written."""


class DivergedError(UntrainableError):
    """The loss or a gradient stopped being a finite number."""


class InterruptedByUser(ApfError):  # noqa: N818  # a state, as KeyboardInterrupt is
    """Asked to stop: a checkpoint is on disk, the same command continues from it."""


class WorkersError(ApfError):
    """The processes that should train cannot be had, or ended otherwise than by their work."""


class RegistryError(ApfError):
    """The tracker refuses, or a model does not replay as it was trained."""


class PromotionRefusedError(RegistryError):
    """The champion stays: a rule of the gate failed, or the champion is another one by now."""


class ExportError(ApfError):
    """A model cannot be exported, or what was exported does not answer as the model does."""


NO_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "MPS backend out of memory", "STATUS_ALLOC_FAILED")
"""What torch writes into a plain RuntimeError when it gets no memory."""


def fails_trial(error: BaseException) -> bool:
    """Whether an error is its trial's own failure: these values cannot be trained, or do not fit into memory.

    Any other error says nothing about the values. A tracker that is away, a full disk or a bug must not decide which
    trial is chosen.
    """
    if isinstance(error, (UntrainableError, MemoryError)):
        return True
    named = {kind.__qualname__ for kind in type(error).__mro__ if kind.__module__.split(".")[0] == "torch"}
    text = str(error) if isinstance(error, RuntimeError) else ""
    return "OutOfMemoryError" in named or any(words in text for words in NO_MEMORY)


def is_system_error(error: BaseException | None) -> bool:
    """Whether an operation of the system failed behind an error, otherwise than by a file that is not there."""
    while error is not None:
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            return True
        error = error.__cause__ or error.__context__
    return False


def portable(error: Exception) -> Exception:
    """The error, or one that says the same, if it does not survive the way to another process."""
    try:
        return error if type(pickle.loads(pickle.dumps(error))) is type(error) else RuntimeError(str(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
