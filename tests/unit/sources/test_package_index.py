"""The package index, served by a small real server; nothing of a package is ever run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from apf_tasks.errors import SourceError
from apf_tasks.sources._pip_settings import _by_priority, pip_settings
from apf_tasks.sources.archives import extract
from apf_tasks.sources.package_index import cache_folder, fetch, shown
from tests.support.archives import make_zip, tar

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
    assert "fetching my_reviews-1.0.tar.gz (0.0 MB)" in caplog.text
    asked = len(reviews.asked)
    assert fetch("my-reviews", "1.0", wanted) == archive
    assert len(reviews.asked) == asked
    found = extract(archive, "data/inner.tar.gz!/movies/films.tsv", tmp_path / "unpacked")
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


def test_pip_is_asked_in_a_process_of_its_own() -> None:
    said = "import sys; from apf_tasks.sources._pip_settings import pip_settings; pip_settings();"
    said += "print('pip' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", said], env={"PIP_CONFIG_FILE": os.devnull}, capture_output=True)
    assert asked.stdout.split() == [b"False"], asked.stderr.decode()


def test_a_full_disk_says_so() -> None:
    from apf_tasks.sources.package_index import cannot_write

    error = cannot_write(OSError(28, "No space left on device"), "package p==1", Path("/nowhere/at/all"))
    assert "GiB free. Free some space, or point APF_CACHE at another disk" in str(error)


def test_a_real_source_distribution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("APF_CACHE", str(tmp_path))
    try:
        archive = fetch("vaderSentiment", "3.3.2", VADER_SHA256)
    except SourceError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    inside = "additional_resources/hutto_ICWSM_2014.tar.gz!/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    found = extract(archive, inside, tmp_path / "unpacked")
    assert len(found.read_bytes().splitlines()) == 10_605
