"""Where data is searched: the folder LIKELY_DATA, then the user's cache, then the network."""

from __future__ import annotations

import os
from pathlib import Path

from likely.data.catalogue import Entry, RemoteFile
from likely.data.download import Progress, download
from likely.errors import InvalidData, InvalidSetting


def data_folder() -> Path | None:
    """The folder that LIKELY_DATA names, or None where it is unset.

    Raises:
        InvalidSetting: LIKELY_DATA is set but is no folder.
    """
    setting = os.environ.get("LIKELY_DATA", "")
    if not setting:
        return None
    folder = Path(setting).expanduser()
    if not folder.is_dir():
        raise InvalidSetting(
            f"LIKELY_DATA={setting} is not a folder; set it to the folder that holds the data "
            "sets, or unset it to download them"
        )
    return folder


def cache_folder() -> Path:
    """The cache: LIKELY_CACHE, or `likely` in XDG_CACHE_HOME, or ~/.cache/likely.

    It may be removed at any time and is rebuilt as needed.
    """
    setting = os.environ.get("LIKELY_CACHE", "")
    if setting:
        return Path(setting).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "likely"


def offline() -> bool:
    """True where LIKELY_OFFLINE is set to anything but 0: nothing is ever downloaded."""
    return os.environ.get("LIKELY_OFFLINE", "0") not in ("", "0")


def folders(entry: Entry) -> list[Path]:
    """Where the files of a data set are looked for, in order."""
    local_data = data_folder()
    local = [] if local_data is None else [local_data / entry.folder]
    return [*local, cache_folder() / "downloads" / entry.folder]


def find(entry: Entry, name: str) -> Path | None:
    """The first place that holds this file of the data set, or None."""
    return next((f / name for f in folders(entry) if (f / name).is_file()), None)


def obtain(entry: Entry, file: RemoteFile, progress: Progress | None = None) -> Path:
    """The path of a published file, downloaded into the cache where it is nowhere yet."""
    local_file = find(entry, file.name)
    if local_file is not None:
        return local_file
    if offline():
        raise missing(entry, file.name, "LIKELY_OFFLINE is set, so nothing is downloaded")
    target = cache_folder() / "downloads" / entry.folder / file.name
    try:
        return download(file.urls, target, sha256=file.sha256, size=file.size, progress=progress)
    except InvalidData as error:
        raise missing(entry, file.name, str(error)) from error


def missing(entry: Entry, name: str, reason: str) -> InvalidData:
    """The error for a file that is nowhere: what was looked for, where, what to do."""
    where = " and ".join(str(folder) for folder in folders(entry))
    if entry.files:
        sources = ", ".join(file.urls[0] for file in entry.files)
        remedy = f"fetch {sources} by other means into {folders(entry)[-1]}"
    else:
        remedy = f"obtain it from its authors ({entry.source})"
    hint = "" if data_folder() else "; or set LIKELY_DATA to a folder that holds it"
    return InvalidData(f"{entry.name}: {name} is not in {where}; {reason}. Remedy: {remedy}{hint}")
