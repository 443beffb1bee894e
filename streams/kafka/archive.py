"""Java's class-data archive: the broker's classes ready to map, which halves the time of a start.

Java maps the file as it is and crashes on a damaged one, so the name carries the content's checksum.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streams.kafka.java import Java

logger = logging.getLogger(__name__)

PREFIX = "classes-"


def archive_key(java: Java, jars: Sequence[Path]) -> str:
    """Names the one Java and the very jar files, in their order, that an archive holds for."""
    files = [f"{jar} {jar.stat().st_size} {jar.stat().st_mtime_ns}" for jar in jars]
    text = "\n".join([str(java.path), java.version, *files])
    return PREFIX + hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def find_archive(folder: Path, key: str) -> Path | None:
    """The archive of that key, None when there is none. A damaged one is removed."""
    for path in folder.glob(f"{key}-*.jsa"):
        if path.stem == f"{key}-{_checksum(path)}":
            return path
        logger.warning("removed %s: its content is not what was written", path)
        path.unlink(missing_ok=True)
    return None


def keep_archive(written: Path, folder: Path) -> None:
    """Moves `<key>.jsa`, which Java wrote on a clean end, into the folder in place of any other.

    A broker starts without an archive as well, so a failure is only logged.
    """
    kept = folder / f"{written.stem}-{_checksum(written)}.jsa"
    copy = kept.with_suffix(".tmp")
    try:
        shutil.move(written, copy)
        for other in folder.glob(f"{PREFIX}*.jsa"):
            other.unlink(missing_ok=True)
        copy.replace(kept)
    except OSError as error:
        copy.unlink(missing_ok=True)
        written.unlink(missing_ok=True)
        logger.warning("the next start takes a second longer: %s could not be kept (%s)", kept, error)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
