"""A file as its bytes, also where it is compressed: .gz, .bz2, .xz, and .zip with one file in it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from apf_tasks.errors import DataError

MARKS: Mapping[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
"""How a compressed file begins, and what opens it."""
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, NotImplementedError, RuntimeError)
PIECE = 1 << 24
SHOWN_MEMBERS = 4


def read_bytes(path: Path) -> bytes:
    """All bytes of a file, unpacked. Raises DataError where they are more than half of the free memory: what is small
    on the disk may be large."""
    pieces: list[bytes] = []
    most, size = psutil.virtual_memory().available // 2, 0
    with opened(path) as file:
        while piece := file.read(PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                found = f"more than {most / 2**30:.1f} GiB in it"
                raise DataError(str(path), "a file that fits in half of the free memory", found, "Use a part of it.")
    return b"".join(pieces)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The unpacked content of a file. Raises DataError for a broken one and for a .zip with several files in it."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            reader = next((made for mark, made in MARKS.items() if start.startswith(mark)), None)
            if start[:4] in ZIP:
                with zipfile.ZipFile(file) as archive, archive.open(_only_member(archive, path)) as member:
                    yield member
            elif reader is not None:
                with reader(path) as unpacked:
                    yield unpacked
            else:
                yield file
    except BROKEN as error:
        found = f"{type(error).__name__}: {error}"
        raise DataError(str(path), "a compressed file that can be read", found, "Get it again.") from error


def _only_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """The one file in it, without what macOS adds."""
    files = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    if len(files) == 1:
        return files[0]
    names = ", ".join(info.filename for info in files[:SHOWN_MEMBERS]) + (", …" if len(files) > SHOWN_MEMBERS else "")
    found = f"{len(files)} files: {names}" if files else "none"
    raise DataError(str(path), "one file in the archive", found, "Unpack it, and name a file or the folder.")
