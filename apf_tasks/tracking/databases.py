"""Databases of SQLite: the address by which MLflow and Prefect open a file, and the file of an address."""

from __future__ import annotations

from pathlib import Path

SQLITE = "sqlite"


def sqlite_address(database: Path, driver: str = SQLITE) -> str:
    """The address of a file, in which SQLAlchemy finds the same path again."""
    if not set("%?") & set(str(database)):
        return f"{driver}:///{database}"
    from sqlalchemy.engine import URL

    # with its driver named: MLflow makes the folders of an address that begins with sqlite:///, quotes and all
    driver = "sqlite+pysqlite" if driver == SQLITE else driver
    return URL.create(driver, database=str(database)).render_as_string()


def sqlite_file(address: str) -> Path | None:
    """The file of an address; None where it is no file of SQLite's."""
    driver, separator, path = address.partition(":///")
    if not separator or driver.partition("+")[0] != SQLITE:
        return None
    if not set("%?") & set(path):
        return Path(path)
    from sqlalchemy.engine import make_url

    return Path(make_url(address).database or "")
