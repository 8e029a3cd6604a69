"""Digests of values, files and folders."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

DIGEST_BYTES = 16


def digest(value: Any) -> str:
    """blake2b of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def file_digest(path: Path) -> str:
    """blake2b of a file's bytes."""
    hasher = blake2b(digest_size=DIGEST_BYTES)
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            hasher.update(chunk)
    return hasher.hexdigest()


def fingerprint_files(folder: Path, names: Sequence[str]) -> str:
    """Fingerprint of the named files (or all files of a named folder) together, by relative name and content."""
    found = {n: folder / n for n in names if not (folder / n).is_dir()}
    found |= {str(p.relative_to(folder)): p for n in names for p in sorted((folder / n).rglob("*")) if p.is_file()}
    return digest({name: file_digest(path) for name, path in sorted(found.items())})


def fsync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
