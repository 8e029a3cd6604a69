"""The package index and the archives from it: served by a small real server, nothing of a package is ever run."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from apf_tasks import unpacking
from apf_tasks.errors import SourceError
from apf_tasks.package_index import cache_folder, fetch, shown
from apf_tasks.pip_settings import _by_priority, pip_settings
from apf_tasks.unpacking import members

VADER_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"


@dataclass
class Index:
    """A simple index on this machine: package -> file name -> content."""

    packages: dict[str, dict[str, bytes]] = field(default_factory=dict)
    style: str = "json"
    stated: dict[str, str] = field(default_factory=dict)
    """File name -> digest the index states, where it is not the true one; "" states none."""
    asked: list[str] = field(default_factory=list)
    authorisation: list[str | None] = field(default_factory=list)
    url: str = ""

    def digest(self, name: str) -> str:
        return next(sha256(files[name]) for files in self.packages.values() if name in files)

    def page(self, package: str) -> tuple[str, bytes]:
        stated = {name: self.stated.get(name, self.digest(name)) for name in self.packages[package]}
        if self.style == "json":
            files = [
                {"filename": n, "url": f"/files/{n}", "hashes": {"sha256": d} if d else {}} for n, d in stated.items()
            ]
            return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()
        links = [f'<a href="../../files/{n}{f"#sha256={d}" if d else ""}">{n}</a>' for n, d in stated.items()]
        return "text/html", f"<html><body>{'<br>'.join(links)}</body></html>".encode()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Index]:
    served = Index()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            served.authorisation.append(self.headers.get("Authorization"))
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "simple" and name in served.packages:
                self.answer(*served.page(name))
            elif kind == "files":
                self.answer("application/gzip", next(f[name] for f in served.packages.values() if name in f))
            else:
                self.send_error(404)

        def answer(self, content_type: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Not on the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_port}/simple/"
    use_pip(monkeypatch, tmp_path, PIP_INDEX_URL=served.url)
    yield served
    server.shutdown()
    server.server_close()


def use_pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: str = "[global]\n", **variables: str) -> None:
    """pip as if this machine had only that configuration, and an empty cache."""
    for name in ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "CERT", "PROXY", "TRUSTED_HOST"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    (tmp_path / "pip.conf").write_text(config)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("APF_CACHE", str(tmp_path / "cache"))
    # a machine-wide file cannot be hidden from pip, but variables win over it
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///nowhere")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar(files: dict[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def make_zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def reviews(index: Index, tmp_path: Path) -> Index:
    """`my-reviews` 1.0 as a source distribution that would leave a mark if it ran, and 1.0, 1.1 as wheels."""
    mark = tmp_path / "it_ran"
    inner = tar({"movies/films.tsv": b"1\tgood\n", "movies/more.tsv": b"2\tbad\n"})
    index.packages["my-reviews"] = {
        "my_reviews-1.0.tar.gz": tar(
            {
                "my_reviews-1.0/setup.py": f"open({str(mark)!r}, 'w')".encode(),
                "my_reviews-1.0/data/inner.tar.gz": inner,
                "my_reviews-1.0/data/a.csv": b"text,label\n",
            }
        ),
        "my_reviews-1.0-py3-none-any.whl": make_zip({"my_reviews/a.csv": b"wheel", "my_reviews-1.0.dist-info/W": b""}),
        "my_reviews-1.1-py3-none-any.whl": make_zip({"my_reviews/a.csv": b"newer"}),
    }
    return index


@pytest.mark.parametrize("style", ["json", "html"])
@pytest.mark.parametrize("with_digests", [True, False])
def test_the_file_with_the_pinned_digest_is_fetched_once_and_nothing_runs(
    reviews: Index, tmp_path: Path, style: str, with_digests: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reviews.style = style
    reviews.stated = {} if with_digests else dict.fromkeys(reviews.packages["my-reviews"], "")
    caplog.set_level(logging.INFO, logger="apf")
    wanted = reviews.digest("my_reviews-1.0.tar.gz")
    archive = fetch("My.Reviews", "1.0.0", wanted)
    assert archive == tmp_path / "cache" / "packages" / wanted / "my_reviews-1.0.tar.gz"
    assert any("fetching my_reviews-1.0.tar.gz (0.0 MB)" in record.message for record in caplog.records)
    asked = len(reviews.asked)
    assert fetch("my-reviews", "1.0", wanted) == archive
    assert len(reviews.asked) == asked
    found = members(archive, "data/inner.tar.gz!/movies/films.tsv", tmp_path / "unpacked")
    assert found.name == "films.tsv"
    assert found.read_bytes() == b"1\tgood\n"
    assert not (tmp_path / "it_ran").exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_damaged_file_in_the_cache_is_fetched_again(reviews: Index) -> None:
    wanted = reviews.digest("my_reviews-1.0.tar.gz")
    archive = fetch("my-reviews", "1.0", wanted)
    archive.write_bytes(b"half")
    assert sha256(fetch("my-reviews", "1.0", wanted).read_bytes()) == wanted


def test_another_content_than_stated_is_not_kept(reviews: Index) -> None:
    reviews.stated = {"my_reviews-1.0.tar.gz": "1" * 64}
    with pytest.raises(SourceError, match=r"my_reviews-1.0.tar.gz with sha256 .*do not trust the index"):
        fetch("my-reviews", "1.0", "1" * 64)
    assert not [path for path in cache_folder().rglob("*") if path.is_file()]


def test_wrong_digest_names_the_digests_there_are(reviews: Index) -> None:
    digest = reviews.digest("my_reviews-1.0.tar.gz")
    with pytest.raises(SourceError, match=f"found my_reviews-1.0.tar.gz {digest}; my_reviews-1.0-py3-none-any.whl"):
        fetch("my-reviews", "1.0", "0" * 64)
    newer = reviews.digest("my_reviews-1.1-py3-none-any.whl")
    with pytest.raises(SourceError, match=r"the file you mean: that one is my_reviews-1.1-py3-none-any.whl"):
        fetch("my-reviews", "1.0", newer)


def test_unknown_package_and_version(reviews: Index) -> None:
    with pytest.raises(SourceError, match=r"package my-review==1.0: expected a package of that name on the index"):
        fetch("my-review", "1.0", "0" * 64)
    with pytest.raises(SourceError, match=r"expected version 2.0, found only 1.0, 1.1. Choose one"):
        fetch("my-reviews", "2.0", "0" * 64)


def test_unreachable_index_is_one_line_without_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_pip(monkeypatch, tmp_path, PIP_INDEX_URL="http://user:secret@127.0.0.1:9/simple")
    with pytest.raises(SourceError, match=r"found http://127.0.0.1:9/simple/p/: \[Errno") as caught:
        fetch("p", "1", "0" * 64)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_credentials_of_the_index_are_used_for_its_files_only(
    reviews: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", reviews.url.replace("//", "//user:p%40ss@"))
    fetch("my-reviews", "1.1", reviews.digest("my_reviews-1.1-py3-none-any.whl"))
    assert reviews.authorisation == ["Basic dXNlcjpwQHNz"] * 2
    assert shown("https://user:p@x/simple") == "https://x/simple"


def test_find_links_and_a_local_index_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = make_zip({"p/a.txt": b"a"})
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "p-1-py3-none-any.whl").write_bytes(content)
    use_pip(monkeypatch, tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(folder))
    assert fetch("p", "1", sha256(content)).read_bytes() == content
    index = tmp_path / "simple"
    (index / "q").mkdir(parents=True)
    (index / "q" / "index.html").write_text(f'<a href="../../wheels/q-2.zip#sha256={sha256(b"q")}">q</a>')
    (folder / "q-2.zip").write_bytes(b"q")
    use_pip(monkeypatch, tmp_path, PIP_INDEX_URL=index.as_uri())
    assert fetch("q", "2", sha256(b"q")).read_bytes() == b"q"


def test_pip_settings_come_from_file_and_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = "[global]\nindex-url = https://mirror/simple\ncert = /c.pem\n[download]\nproxy = http://proxy:1\n"
    use_pip(monkeypatch, tmp_path, config, PIP_EXTRA_INDEX_URL="https://a/simple https://b/simple")
    settings = pip_settings()
    assert settings.indexes == ("https://mirror/simple", "https://a/simple", "https://b/simple")
    assert settings.proxy == "http://proxy:1"
    assert _by_priority(["global.cert='/file'"], {"PIP_CERT": "/variable"})["cert"] == "/variable"


def test_without_configuration_pips_own_index_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_pip(monkeypatch, tmp_path)
    assert pip_settings().indexes[0].endswith("/simple")


def test_a_folder_is_extracted_whole_and_used_again(tmp_path: Path) -> None:
    archive = tmp_path / "p-1.tar.xz"
    archive.write_bytes(tar({"p-1/m/config.json": b"{}", "p-1/m/sub/x": b"x", "p-1/n/y": b"y"}, "w:xz"))
    folder = members(archive, "m/", tmp_path / "to")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == ["config.json", "sub/x"]
    made = (folder / "config.json").stat().st_mtime_ns
    assert members(archive, "m/", tmp_path / "to") == folder
    assert (folder / "config.json").stat().st_mtime_ns == made
    (folder / "config.json").write_text("[]")
    assert (members(archive, "m/", tmp_path / "to") / "config.json").read_text() == "{}"
    assert not list((tmp_path / "to").glob(".unpacking-*"))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_every_compression_and_archives_in_archives(tmp_path: Path, mode: str) -> None:
    inner = make_zip({"deep/a.txt": b"deep", "deep/b.txt": b"b"})
    archive = tmp_path / "x"
    archive.write_bytes(tar({"one/inner.zip": inner, "two/z": b""}, mode))
    assert members(archive, "one/inner.zip!/deep/a.txt", tmp_path / "to").read_bytes() == b"deep"
    whole = members(archive, "one/inner.zip!/", tmp_path / "to")
    assert (whole / "deep/b.txt").read_bytes() == b"b"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (make_zip({"data/a": b"", "../x": b"out"}), "../x"),
        (make_zip({"/etc/x": b"out"}), "/etc/x"),
        (make_zip({"data\\..\\..\\x": b"out"}), "data"),
        (tar({"data/a": b"", "data/../../x": b"out"}), "data/../../x"),
        (tar({"data/a": link("data/a", "../../x")}), "data/a, a link to ../../x"),
        (tar({"data/a": link("data/a", "/etc/passwd")}), "data/a, a link to /etc/passwd"),
        (tar({"data/a": link("data/a", "../x", tarfile.LNKTYPE)}), "data/a, a link to ../x"),
        (tar({"data/a": link("data/a", "", tarfile.CHRTYPE)}), "data/a, which is a device"),
    ],
)
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    archive = tmp_path / "bad"
    archive.write_bytes(content)
    with pytest.raises(SourceError, match="expected an archive that stays in its own folder") as caught:
        members(archive, "data/", tmp_path / "deep" / "to")
    assert found in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["bad"]


def test_a_link_inside_the_archive_is_read_as_its_file(tmp_path: Path) -> None:
    archive = tmp_path / "x"
    archive.write_bytes(
        tar({"d/real": b"r", "d/s": link("d/s", "real"), "d/h": link("d/h", "d/real", tarfile.LNKTYPE)})
    )
    folder = members(archive, "d", tmp_path / "to")
    assert {p.name: (p.read_bytes(), p.is_symlink()) for p in folder.iterdir()} == dict.fromkeys(
        ("real", "s", "h"), (b"r", False)
    )
    archive.write_bytes(tar({"d/s": link("d/s", "gone"), "e": b""}))
    with pytest.raises(SourceError, match="a link to gone that is no file in the archive"):
        members(archive, "d", tmp_path / "to")


def test_more_than_the_cap_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_UNPACKED_BYTES", 1000)
    archive = tmp_path / "bomb.zip"
    archive.write_bytes(make_zip({"zeros": bytes(10**6)}))
    with pytest.raises(SourceError, match="expected an archive of sensible size"):
        members(archive, "zeros", tmp_path / "to")
    assert not [path for path in (tmp_path / "to").rglob("*") if path.is_file()]


def test_what_is_not_there_is_answered_with_the_nearest_names(tmp_path: Path) -> None:
    archive = tmp_path / "p-1.tar.gz"
    archive.write_bytes(tar({"p-1/data/movie_reviews.txt": b"", "p-1/setup.py": b""}))
    with pytest.raises(SourceError, match=r"found none, but data/movie_reviews.txt"):
        members(archive, "data/movieReviews.txt", tmp_path / "to")
    archive.write_bytes(b"no archive")
    with pytest.raises(SourceError, match="expected an archive that can be read, found ReadError"):
        members(archive, "data", tmp_path / "to")
    whole = make_zip({"a": bytes(range(256)) * 50})
    archive.write_bytes(whole[:100] + b"????" + whole[104:])
    with pytest.raises(SourceError, match="expected an archive that can be read"):
        members(archive, "a", tmp_path / "to")


def test_a_full_disk_says_so() -> None:
    from apf_tasks.package_index import cannot_write

    error = cannot_write(OSError(28, "No space left on device"), "package p==1", Path("/nowhere/at/all"))
    assert "GiB free. Free some space, or point APF_CACHE at another disk" in str(error)


def test_a_real_source_distribution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APF_CACHE", str(tmp_path))
    try:
        archive = fetch("vaderSentiment", "3.3.2", VADER_SHA256)
    except SourceError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    inside = "additional_resources/hutto_ICWSM_2014.tar.gz!/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    found = members(archive, inside, tmp_path / "unpacked")
    assert len(found.read_bytes().splitlines()) == 10_605
