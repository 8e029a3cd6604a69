"""Out of archives, and never out of the folder."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from apf_tasks.errors import SourceError
from apf_tasks.sources import archives
from apf_tasks.sources.archives import extract
from tests.support.archives import link, make_zip, tar


def test_a_folder_is_extracted_whole_and_used_again(tmp_path: Path) -> None:
    archive = tmp_path / "p-1.tar.xz"
    archive.write_bytes(tar({"p-1/m/config.json": b"{}", "p-1/m/sub/x": b"x", "p-1/n/y": b"y"}, "w:xz"))
    folder = extract(archive, "m/", tmp_path / "to")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == ["config.json", "sub/x"]
    made = (folder / "config.json").stat().st_mtime_ns
    assert extract(archive, "m/", tmp_path / "to") == folder
    assert (folder / "config.json").stat().st_mtime_ns == made
    (folder / "config.json").write_text("[]")
    assert (extract(archive, "m/", tmp_path / "to") / "config.json").read_text() == "{}"
    assert not list((tmp_path / "to").glob(".unpacking-*"))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_every_compression_and_archives_in_archives(tmp_path: Path, mode: str) -> None:
    inner = make_zip({"deep/a.txt": b"deep", "deep/b.txt": b"b"})
    archive = tmp_path / "x"
    archive.write_bytes(tar({"one/inner.zip": inner, "two/z": b""}, mode))
    assert extract(archive, "one/inner.zip!/deep/a.txt", tmp_path / "to").read_bytes() == b"deep"
    whole = extract(archive, "one/inner.zip!/", tmp_path / "to")
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
    ids=range(8),  # an archive's bytes hold the time it was made at: workers would not agree on what tests there are
)
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    archive = tmp_path / "bad"
    archive.write_bytes(content)
    with pytest.raises(SourceError, match="expected an archive that stays in its own folder") as caught:
        extract(archive, "data/", tmp_path / "deep" / "to")
    assert found in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["bad"]


def test_a_link_inside_the_archive_is_read_as_its_file(tmp_path: Path) -> None:
    archive = tmp_path / "x"
    archive.write_bytes(
        tar({"d/real": b"r", "d/s": link("d/s", "real"), "d/h": link("d/h", "d/real", tarfile.LNKTYPE)})
    )
    folder = extract(archive, "d", tmp_path / "to")
    assert {p.name: (p.read_bytes(), p.is_symlink()) for p in folder.iterdir()} == dict.fromkeys(
        ("real", "s", "h"), (b"r", False)
    )
    archive.write_bytes(tar({"d/s": link("d/s", "gone"), "e": b""}))
    with pytest.raises(SourceError, match="a link to gone that is no file in the archive"):
        extract(archive, "d", tmp_path / "to")


def test_more_than_the_cap_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1000)
    archive = tmp_path / "bomb.zip"
    archive.write_bytes(make_zip({"zeros": bytes(10**6)}))
    with pytest.raises(SourceError, match="expected an archive of reasonable size"):
        extract(archive, "zeros", tmp_path / "to")
    assert not [path for path in (tmp_path / "to").rglob("*") if path.is_file()]


def test_a_small_archive_does_not_become_a_large_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ANY_RATIO_BYTES", 10**5)
    archive = tmp_path / "bomb.zip"
    archive.write_bytes(make_zip({"zeros": bytes(10**6), "few": bytes(10**5)}))
    with pytest.raises(SourceError, match=r"over 100 times its size"):
        extract(archive, "zeros", tmp_path / "to")
    assert not [path for path in (tmp_path / "to").rglob("*") if path.is_file()]
    assert extract(archive, "few", tmp_path / "to").stat().st_size == 10**5


def test_what_is_not_there_is_answered_with_the_nearest_names(tmp_path: Path) -> None:
    archive = tmp_path / "p-1.tar.gz"
    archive.write_bytes(tar({"p-1/data/movie_reviews.txt": b"", "p-1/setup.py": b""}))
    with pytest.raises(SourceError, match=r"found none, but data/movie_reviews.txt"):
        extract(archive, "data/movieReviews.txt", tmp_path / "to")
    archive.write_bytes(b"no archive")
    with pytest.raises(SourceError, match="expected an archive that can be read, found ReadError"):
        extract(archive, "data", tmp_path / "to")
    whole = make_zip({"a": bytes(range(256)) * 50})
    archive.write_bytes(whole[:100] + b"????" + whole[104:])
    with pytest.raises(SourceError, match="expected an archive that can be read"):
        extract(archive, "a", tmp_path / "to")
