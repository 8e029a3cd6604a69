"""Files out of archives, and out of archives in archives, without running anything and without leaving the folder.

A path inside is written `folder/file`; `!/` enters an archive: `data/reviews.tar.gz!/reviews/movies.txt`.
"""

from __future__ import annotations

import difflib
import io
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import IO

from apf_tasks.cache.code_digest import code_digests
from apf_tasks.cache.fingerprints import fingerprint_files
from apf_tasks.errors import SourceError

MAX_UNPACKED_BYTES = 20 * 2**30
MAX_RATIO, ANY_RATIO_BYTES = 100, 2**28
"""How many times its own size an archive may unpack to; up to so many bytes it may whatever its size. Text packs to a
third or a tenth."""
LEVEL = "!/"
CONTENT, FINGERPRINT = "content", "fingerprint"
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Entry:
    """One file in an archive."""

    name: str
    open: Callable[[], IO[bytes]]


@dataclass
class ExtractionBudget:
    """How much may still be unpacked."""

    left_bytes: int
    found: str
    """What an archive with more than that has."""

    @classmethod
    def of(cls, archive: Path) -> ExtractionBudget:
        """By size, and by ratio."""
        size = archive.stat().st_size
        most = max(ANY_RATIO_BYTES, MAX_RATIO * size)
        if most < MAX_UNPACKED_BYTES:
            found = f"more than {most / 2**20:,.0f} MiB in {size / 2**20:,.1f}, over {MAX_RATIO} times its size"
            return cls(most, found)
        return cls(MAX_UNPACKED_BYTES, f"more than {MAX_UNPACKED_BYTES / 2**30:.0f} GiB in it")


def extract(archive: Path, inside: str, to: Path) -> Path:
    """Extract `inside` (a file or a folder) below `to`, and say where it is.

    What was extracted before, by the same code, is used again when its content is still the same.
    """
    levels = inside.strip("/").split(LEVEL) if not inside.endswith(LEVEL) else [*inside[:-2].split(LEVEL), ""]
    place = to / _key(archive, inside)
    result = place / CONTENT / Path(*(part for level in levels for part in PurePosixPath(level).parts))
    if _is_whole(place):
        return result
    shutil.rmtree(place, ignore_errors=True)
    try:
        to.mkdir(parents=True, exist_ok=True)
        _extract_then_rename(archive, levels, place, result.relative_to(place))
    except OSError as error:
        from apf_tasks.sources.package_index import cannot_write

        raise cannot_write(error, f"unpacking {archive.name}", to) from error
    return result


def _key(archive: Path, inside: str) -> str:
    status = archive.stat()
    named = f"{archive.name}\n{status.st_size}\n{status.st_mtime_ns}\n{inside}\n{code_digests(['sources.archives'])}"
    return blake2b(named.encode(), digest_size=8).hexdigest()


def _is_whole(place: Path) -> bool:
    try:
        return (place / FINGERPRINT).read_text() == fingerprint_files(place, [CONTENT])
    except OSError:
        return False


def _extract_then_rename(archive: Path, levels: list[str], place: Path, result: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".unpacking-") as temporary:
        made = Path(temporary) / "made"
        target = made / result
        target.parent.mkdir(parents=True)
        room = ExtractionBudget.of(archive)
        current = archive
        for depth, level in enumerate(levels[:-1]):
            inner = Path(temporary) / f"level-{depth}"
            _extract(current, level, inner, room, archive.name)
            current = inner
        _extract(current, levels[-1], target, room, archive.name)
        (made / FINGERPRINT).write_text(fingerprint_files(made, [CONTENT]))
        try:
            made.rename(place)
        except OSError:
            if not _is_whole(place):  # otherwise another process was faster with the same files
                raise


def _extract(archive: Path, inside: str, target: Path, room: ExtractionBudget, name: str) -> None:
    """One level: the file or folder `inside` becomes `target`."""
    where = f"{name}, {inside or 'whole archive'}"
    try:
        with _opened(archive, where) as entries:
            found = _matching(entries, inside, where)
            for entry, relative in found:
                path = target / relative if relative else target
                path.parent.mkdir(parents=True, exist_ok=True)
                _copy(entry, path, room, where)
    except BROKEN as error:
        do = "Delete it from the cache and run the same command again; if that does not help, the package is broken."
        raise SourceError(where, "an archive that can be read", f"{type(error).__name__}: {error}", do) from error


@contextmanager
def _opened(archive: Path, where: str) -> Iterator[list[Entry]]:
    """The files of a zip or tar archive, recognised by content."""
    with archive.open("rb") as file:
        if file.read(4) in (b"PK\x03\x04", b"PK\x05\x06"):
            with zipfile.ZipFile(file) as opened:
                yield [_zip_entry(opened, info, where) for info in opened.infolist() if not info.is_dir()]
        else:
            file.seek(0)
            with tarfile.open(fileobj=file) as tape:
                yield [entry for info in tape.getmembers() if (entry := _tar_entry(tape, info, where))]


def _zip_entry(opened: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Entry:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _unsafe(where, f"{info.filename}, which is a link or a device")
    return Entry(_safe(info.filename, where), lambda: opened.open(info))


def _tar_entry(tape: tarfile.TarFile, info: tarfile.TarInfo, where: str) -> Entry | None:
    """A regular file, or a link inside the archive read as the file it points to; None for a folder."""
    name = _safe(info.name, where)
    if info.isdir():
        return None
    if info.issym() or info.islnk():
        base = str(PurePosixPath(name).parent) if info.issym() else "."
        _safe(os.path.normpath(f"{base}/{info.linkname}"), where, f"{info.name}, a link to {info.linkname}")
        if info.linkname.startswith("/"):
            raise _unsafe(where, f"{info.name}, a link to {info.linkname}")
    elif not info.isfile():
        raise _unsafe(where, f"{info.name}, which is a device")
    return Entry(name, lambda: _tar_content(tape, info, where))


def _tar_content(tape: tarfile.TarFile, info: tarfile.TarInfo, where: str) -> IO[bytes]:
    try:
        content = tape.extractfile(info)
    except KeyError:
        content = None
    if content is None:
        do = "Name single files, or ask whoever made the archive."
        raise SourceError(where, "files", f"{info.name}, a link to {info.linkname} that is no file in the archive", do)
    return content


def _safe(name: str, where: str, shown: str = "") -> str:
    """The name, without `./`, when it stays in the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise _unsafe(where, shown or name)
    return str(path)


def _unsafe(where: str, found: str) -> SourceError:
    do = "Nothing was unpacked. Do not use this package."
    return SourceError(where, "an archive that stays in its own folder", found, do)


def _matching(entries: list[Entry], inside: str, where: str) -> list[tuple[Entry, str]]:
    """(entry, path below the wanted folder; "" when the entry itself is wanted)."""
    tops = {entry.name.split("/")[0] for entry in entries}
    # a source distribution keeps everything in `name-version/`
    prefixes = ["", f"{tops.pop()}/"] if len(tops) == 1 else [""]
    wanted = inside.strip("/")
    for prefix in prefixes:
        path = prefix + wanted
        # a later entry of the same name replaces the earlier one, as in any unpacker
        if exact := [entry for entry in entries if entry.name == path]:
            return [(exact[-1], "")]
        folder = path.rstrip("/") + "/" if path else ""
        below = {e.name: e for e in entries if e.name.startswith(folder)}
        if below:
            return [(entry, name[len(folder) :]) for name, entry in below.items()]
    raise SourceError(
        where, "a file or folder of that name", _nearest(entries, wanted, prefixes[-1]), "Choose one of them."
    )


def _nearest(entries: list[Entry], wanted: str, prefix: str) -> str:
    names = [entry.name.removeprefix(prefix) for entry in entries]
    folders = {str(p) + "/" for n in names for p in PurePosixPath(n).parents if str(p) != "."}
    known = sorted({*names, *folders})
    same_name = [n for n in known if PurePosixPath(n).name == PurePosixPath(wanted).name]
    near = same_name[:3] or difflib.get_close_matches(wanted, known, n=3, cutoff=0.4) or known[:5]
    return "none, but " + ", ".join(near) if near else "an empty archive"


def _copy(entry: Entry, path: Path, room: ExtractionBudget, where: str) -> None:
    with entry.open() as source, path.open("wb") as out:
        # counted while copying: the sizes that an archive states about itself need not be true
        while chunk := source.read(io.DEFAULT_BUFFER_SIZE * 16):
            room.left_bytes -= len(chunk)
            if room.left_bytes < 0:
                do = "Name a smaller folder inside it, or unpack it yourself if you trust it."
                raise SourceError(where, "an archive of reasonable size", room.found, do)
            out.write(chunk)
