"""Every error apf raises on purpose.

    ApfError
    ├── ParamsError      the params file cannot be read, or says something that is not allowed
    ├── SourceError      a data or model source cannot be reached, verified or unpacked
    ├── DataError        the rows cannot be used
    │   └── CannotTeach  the rows can be read, but no model can learn from them
    ├── ModelError       the pretrained model cannot be loaded, or does not fit the data
    ├── StoreError       the stage store cannot be read or written (no space, no permission)
    ├── Diverged         the loss or a gradient stopped being a finite number
    ├── Interrupted      asked to stop: a checkpoint is on disk, the same command continues from it
    ├── WorkersError     the workers that should train the trials of a search cannot be had
    ├── RegistryError    the tracker refuses, or a model does not replay as it was trained
    │   └── PromotionRefused  the champion stays: a rule of the gate failed, or the champion is another one by now
    └── ExportError      a model cannot be exported, or what was exported does not answer as the model does

An ApfError says four things: where it happened, what was expected, what was found, and what to do next.
"""

from __future__ import annotations

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


class CannotTeach(DataError):
    """The rows can be read, but no model can learn from them."""


class ModelError(ApfError):
    """The pretrained model cannot be loaded, or does not fit the data."""


class StoreError(ApfError):
    """The stage store cannot be read or written."""


class Diverged(ApfError):
    """The loss or a gradient stopped being a finite number."""


class Interrupted(ApfError):
    """Asked to stop: a checkpoint is on disk, the same command continues from it."""


class WorkersError(ApfError):
    """The workers that should train the trials of a search cannot be had."""


class RegistryError(ApfError):
    """The tracker refuses, or a model does not replay as it was trained."""


class PromotionRefused(RegistryError):
    """The champion stays: a rule of the gate failed, or the champion is another one by now."""


class ExportError(ApfError):
    """A model cannot be exported, or what was exported does not answer as the model does."""


def portable(error: Exception) -> Exception:
    """The error, or one that says the same, if it does not survive the way to another process."""
    try:
        return error if type(pickle.loads(pickle.dumps(error))) is type(error) else RuntimeError(str(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
