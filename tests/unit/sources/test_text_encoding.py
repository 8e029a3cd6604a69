"""Text in the encodings that people save it in."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from apf_tasks.errors import DataError
from apf_tasks.sources.text_encoding import read_text

CHINESE = "text,label\n这家酒店的房间很干净，服务也不错。,1\n电影太无聊了，看到一半就睡着了,0\n物流很快，给个好评,1\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_encodings_are_recognised(tmp_path: Path, encoding: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="apf")
    assert read_text(write(tmp_path, CHINESE.encode(encoding)), "auto") == CHINESE
    assert ("a.csv is not UTF-8: read as gb18030" in caplog.text) == (encoding == "gb18030")


def test_western_european_is_recognised(tmp_path: Path) -> None:
    text = "It’s a “great” café\n" * 5 + "plain\n" * 50
    assert read_text(write(tmp_path, text.encode("cp1252")), "auto") == text


def test_an_encoding_that_is_named_is_used(tmp_path: Path) -> None:
    path = write(tmp_path, "text,label\ncafé,x\n".encode("cp1252"))
    assert read_text(path, "cp1252") == "text,label\ncafé,x\n"
    with pytest.raises(DataError, match=r"a.csv: expected text in utf-8, found byte 0xe9 at offset 14 \(line 2\)"):
        read_text(path, "utf-8")
    with pytest.raises(DataError, match=r"data.encoding: expected a known encoding, found 'utf-9'"):
        read_text(path, "utf-9")


def test_one_bad_byte_in_utf8_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, CHINESE.encode() + b"\xff,1\n")
    with pytest.raises(
        DataError, match=r"0xff at offset \d+ \(line 5\), which is not utf-8. Most of the file is UTF-8"
    ):
        read_text(path, "auto")


def test_an_unclear_encoding_is_asked_for(tmp_path: Path) -> None:
    japanese = "この映画はとても面白かったです。\t1\n俳優の演技が良かった\t0\n"
    with pytest.raises(DataError, match=r"byte 0x82 at offset 0 .* Write data.encoding; likely: .*cp932"):
        read_text(write(tmp_path, japanese.encode("cp932")), "auto")
    with pytest.raises(DataError, match=r"zero bytes. If it is UTF-16, write data.encoding: utf-16-le"):
        read_text(write(tmp_path, "a\tb\n".encode("utf-16-le")), "auto")


def write(folder: Path, content: bytes) -> Path:
    path = folder / "a.csv"
    path.write_bytes(content)
    return path
