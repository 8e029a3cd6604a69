"""Hostile archives from a package index on this machine, through a `pypi:` source.

Each is pinned by its true digest, as by somebody who was tricked. A case went well when nothing outside of the cache
appears or changes, no link comes out, and the outcome is a file of the archive or one of apf's own errors.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from apf_tasks.params.data import DataParams
from apf_tasks.sources.data import data_files
from tests.campaign.common import Cases, Figure, Workbench
from tests.campaign.isolated import Found, attempt, isolated
from tests.support.archives import link, make_zip, tar

ROWS = b"text,label\nsome text,a\nother text,b\n"
SECRET = b"a secret that must not come out"
ROOM = 1 << 30
"""Bytes on disk that a small archive may take."""


class Archive(NamedTuple):
    """What the index has, and which path of it is asked for."""

    name: str
    content: bytes
    inside: str = "a.csv"
    end: str = "tar.gz"


def figure(bench: Workbench, quick: bool, seed: int) -> Figure:
    """Of archives that did no harm."""
    cases, outside = Cases("hostile archives did no harm"), bench.folder / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(SECRET)
    for number, archive in enumerate([*tars(outside), *zips(outside), *([] if quick else bombs())]):
        before = {path: path.lstat().st_mtime_ns for path in outside.rglob("*")}
        folder = bench.folder / str(number)
        folder.mkdir()
        with index(archive) as address:
            problems = isolated(folder, fetch, archive, folder, address)
        if {path: path.lstat().st_mtime_ns for path in outside.rglob("*")} != before:
            problems.append("something outside of the cache has changed")
        cases.add(archive.name, [*problems, *came_out(folder, archive)])
    return cases.figure


def fetch(found: Found, archive: Archive, folder: Path, address: str) -> None:
    """As a source of data, with a cache of its own."""
    os.environ.update(APF_CACHE=str(folder), PIP_INDEX_URL=f"{address}/simple", PIP_CONFIG_FILE=os.devnull)
    source = f"pypi:evil==1/{archive.inside}"
    data = DataParams(source=source, sha256=hashlib.sha256(archive.content).hexdigest())
    files = attempt(found, "fetch", lambda: data_files(data))
    if archive.name.startswith("honest") and not files:
        found["problems"].append("an honest archive is refused")
    for path in [path for paths in (files or {}).values() for path in paths]:
        if SECRET in path.read_bytes():
            found["problems"].append("the secret comes out")


def came_out(folder: Path, archive: Archive) -> Iterator[str]:
    """What is wrong in the cache."""
    made = list(folder.rglob("*"))
    if strange := [path.name for path in made if path.is_symlink() or not (path.is_file() or path.is_dir())]:
        yield f"no plain files: {', '.join(strange[:3])}"
    if sum(path.lstat().st_size for path in made) > ROOM:
        yield f"more than {ROOM >> 20} MiB of {len(archive.content) >> 10} KiB"


@contextmanager
def index(archive: Archive) -> Iterator[str]:
    """A package index with one package of one file, within the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = f"evil-1.{archive.end}"
            digest = hashlib.sha256(archive.content).hexdigest()
            page = f'<a href="/files/{file}#sha256={digest}">{file}</a>'.encode()
            wants_page = self.path.endswith("/evil/")
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if wants_page else "application/octet-stream")
            self.end_headers()
            self.wfile.write(page if wants_page else archive.content)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    """An entry that is no file."""
    info = tarfile.TarInfo(name)
    info.type = kind
    return info


def tars(outside: Path) -> Iterator[Archive]:
    """Paths, links and entries that leave the folder, or are no files."""
    secret, hard = str(outside / "secret.txt"), tarfile.LNKTYPE
    yield Archive("honest tar", tar({"a.csv": ROWS}))
    yield Archive("tar: dots", tar({"a.csv": ROWS, "../../../../outside.txt": ROWS}))
    yield Archive("tar: dots asked for", tar({"x/../../outside.txt": ROWS}), "x/../../outside.txt")
    yield Archive("tar: absolute", tar({"a.csv": ROWS, str(outside / "absolute.txt"): ROWS}))
    yield Archive("tar: a folder with dots", tar({"d/a.csv": ROWS, "d/../../outside.txt": ROWS}), "d")
    yield Archive("tar: link to a secret", tar({"a.csv": link("a.csv", secret)}))
    yield Archive("tar: hard link to a secret", tar({"a.csv": link("a.csv", secret, hard)}))
    yield Archive("tar: link by dots", tar({"d": link("d/a.csv", "../" * 30 + secret)}), "d")
    yield Archive("tar: through a link", tar({"d": link("d", str(outside)), "d/through.txt": ROWS}), "d")
    yield Archive("tar: link to itself", tar({"a.csv": link("a.csv", "a.csv")}))
    yield Archive("tar: a ring of links", tar({"a": link("a.csv", "b"), "b": link("b", "a.csv")}))
    chain = {f"l{i}": link(f"l{i}", f"l{i + 1}") for i in range(3000)}
    yield Archive("tar: a chain of links", tar({**chain, "l3000": ROWS}), "l0")
    yield Archive("tar: a pipe", tar({"a.csv": special("a.csv", tarfile.FIFOTYPE)}))
    yield Archive("tar: a device", tar({"a.csv": special("a.csv", tarfile.CHRTYPE)}))
    yield Archive("tar: backslashes", tar({"a.csv": ROWS, "..\\..\\outside.txt": ROWS}))
    yield Archive("tar: a long name", tar({"x" * 5000 + "/a.csv": ROWS}), "x" * 5000 + "/a.csv")
    yield Archive("tar: a long name in a folder", tar({"d/" + "x" * 300: ROWS}), "d")
    yield Archive("tar: file and folder of one name", tar({"d/a": ROWS, "d/a/b.csv": ROWS}), "d")
    yield Archive("tar: many entries", tar({f"d/{i}.csv": b"x" for i in range(10_000)}), "d/5.csv")
    yield Archive("tar: cut", tar({"a.csv": ROWS})[:-40])
    yield Archive("tar: setup.py", tar({"evil-1/setup.py": b"open(%r, 'w')" % secret, "a.csv": ROWS}))


def zips(outside: Path) -> Iterator[Archive]:
    """The same in the other format, and sizes that lie."""
    yield Archive("honest zip", make_zip({"a.csv": ROWS}), end="zip")
    yield Archive("zip: dots", make_zip({"a.csv": ROWS, "../../../outside.txt": ROWS}), end="zip")
    yield Archive("zip: dots asked for", make_zip({"../outside.txt": ROWS}), "../outside.txt", "zip")
    yield Archive("zip: absolute", make_zip({"a.csv": ROWS, str(outside / "absolute.txt"): ROWS}), end="zip")
    yield Archive("zip: link", zip_with_link("a.csv", outside / "secret.txt"), end="zip")
    yield Archive("zip: through a link", zip_with_link("d", outside, {"d/through.txt": ROWS}), "d", "zip")
    lying = bytearray(make_zip({"a.csv": b"0" * 20_000_000}))
    at = lying.rfind(b"PK\x01\x02") + 24
    lying[at : at + 4] = (10).to_bytes(4, "little")
    yield Archive("zip: lies about its size", bytes(lying), end="zip")
    locked = bytearray(make_zip({"a.csv": ROWS}))
    locked[6] |= 1
    locked[locked.rfind(b"PK\x01\x02") + 8] |= 1
    yield Archive("zip: encrypted", bytes(locked), end="zip")
    nested = make_zip({"a.csv": ROWS})
    for _ in range(30):
        nested = make_zip({"z.zip": nested})
    yield Archive("zip: in a zip in a zip", nested, "!/".join(["z.zip"] * 30) + "!/a.csv", "zip")
    yield Archive("neither", b"no archive", end="zip")
    yield Archive("empty", b"", end="zip")


def zip_with_link(name: str, target: Path, more: dict[str, bytes] | None = None) -> bytes:
    """An archive with a symbolic link."""
    out, info = io.BytesIO(), zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, str(target))
        for path, content in (more or {}).items():
            archive.writestr(path, content)
    return out.getvalue()


def bombs(gibibytes: int = 3) -> Iterator[Archive]:
    """So much nothing, as what is asked for and beside it."""
    for name in ("a.csv", "b.csv"):
        out = io.BytesIO()
        with gzip.GzipFile(fileobj=out, mode="wb") as sink:
            info = tarfile.TarInfo(name)
            info.size = gibibytes << 30
            sink.write(info.tobuf())
            for _ in range(gibibytes << 6):
                sink.write(b"\0" * (1 << 24))
            sink.write(b"\0" * 1024)
        yield Archive(f"tar: a bomb in {name}", out.getvalue())
