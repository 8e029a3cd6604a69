"""The model and data-set hub: which commit a name means, and the files of that commit.

One short question goes first, because the hub's client tries an unreachable host again for half a minute.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from apf_tasks.errors import MissingModelError, SourceError
from apf_tasks.params.data import DataParams
from apf_tasks.params.model import ModelParams

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

Kind = Literal["model", "dataset"]

TIMEOUT_SECONDS = 10
NOT_FOUND = 404
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken")
WITHOUT_HUB = "Check the network connection; `params/sentiment.yaml` works without a hub."


def commit_of(name: str, revision: str | None, kind: Kind) -> str:
    """The 40-digit commit that a revision means, without a download."""
    if revision and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    return _resolve(name, revision, kind)[0]


def _resolve(name: str, revision: str | None, kind: Kind) -> tuple[str, bool]:
    """(commit, whether the hub itself answered; otherwise it stands in the local hub cache)."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    where = f"hub {kind} {name}" + (f"@{revision}" if revision else "")
    kind_of_error = MissingModelError if kind == "model" else SourceError
    try:
        found = HfApi().repo_info(name, revision=revision, repo_type=kind, timeout=TIMEOUT_SECONDS)
        return str(found.sha), True
    except HFValidationError as error:
        do = "Write OWNER/NAME, or the path of a folder that exists."
        raise kind_of_error(where, "a name the hub can have", str(error).splitlines()[0].rstrip("."), do) from None
    except Exception as error:  # every version of the client has another transport library with its own errors
        status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
        if status in (401, 403, 404):
            found_instead = f"{type(error).__name__} (HTTP {status})"
            do = "Check name and revision; for a private or gated one log in with `hf auth login`."
            absent = kind_of_error if status == NOT_FOUND else SourceError  # no permission is no fault of the name
            raise absent(where, "a repository you may read", found_instead, do) from None
        if commit := _cached_commit(name, revision or "main", kind):
            return commit, False
        raise unreachable(where, error) from None


def _cached_commit(name: str, revision: str, kind: Kind) -> str | None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
    try:
        # a commit has no ref, but its snapshot's folder bears its name
        return (
            revision if (folder / "snapshots" / revision).is_dir() else (folder / "refs" / revision).read_text().strip()
        )
    except OSError:
        return None


def unreachable(where: str, error: BaseException) -> SourceError:
    """The hub does not answer: one line."""
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return SourceError(where, "an answer from the hub", f"none ({reason.rstrip('.')})", WITHOUT_HUB)


def download_model_files(model: ModelParams) -> Path:
    """Folder with configuration, tokenizer and safetensors; pickles and code only when they are allowed."""
    from huggingface_hub import snapshot_download

    commit, online = _resolve(model.base, model.revision, "model")
    patterns = [*MODEL_FILES]
    patterns += ["*.bin"] if model.allow_pickle else []
    patterns += ["*.py"] if model.trust_remote_code else []
    try:
        folder = snapshot_download(
            model.base, revision=commit, allow_patterns=patterns, ignore_patterns=["*/*"],
            etag_timeout=TIMEOUT_SECONDS, local_files_only=not online,
        )  # fmt: skip
    except Exception as error:  # as in _resolve
        raise unreachable(f"hub model {model.base}", error) from error
    return Path(str(folder))


def load_hub_dataset(name: str, data: DataParams) -> Dataset | DatasetDict:
    """The data set at the commit that `data.revision` means; from the local hub cache when the hub is away."""
    import datasets
    from huggingface_hub import snapshot_download

    commit, online = _resolve(name, data.revision, "dataset")
    options: dict[str, Any] = {"revision": commit} if online else {}
    try:
        # offline, datasets takes whatever version it prepared last: the files of the very commit are safer
        place = name if online else snapshot_download(name, repo_type="dataset", revision=commit, local_files_only=True)
        return datasets.load_dataset(place, data.subset, **options)
    except ValueError as error:
        found, do = " ".join(str(error).split()), "Write data.subset, or correct it."
        raise SourceError(f"hub dataset {name}", f"a configuration {data.subset or ''!r}", found, do) from error
    except Exception as error:  # as in _resolve
        raise unreachable(f"hub dataset {name}", error) from error
