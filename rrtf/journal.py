"""Rows appended one by one to a JSONL file, each safe against `kill -9` once `append` returns.

For work whose results come singly and by the hundred thousand (replies of an endpoint), where the
shards of `store` do not fit: a file per reply would take a 4 KiB block, three system calls and a
name each, and reading 100,000 of them again takes minutes on a cold disk; a shard of many would
lose those that came since it was begun. One file that is only ever appended to costs one `write`
per row and is read again in a second. What a killed process leaves is at worst one line without
its end, which the next one cuts off. The file is locked while it is open for appending: two
processes would pay for the same reply twice.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SYNC_SECONDS = 5.0  # a power cut loses at most this much


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The whole rows of a journal in the order of their coming; none where there is no file.

    A last line without its end is left out. ValueError names the line that is not a JSON object.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield _row(line, f"{path}:{number}")


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a JSON line ({error}); delete the line to go on") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a JSON object; delete the line to go on")
    return row


class Journal:
    """A journal opened for appending; any thread may append.

    OSError where the file cannot be written, or where another process has it open.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise OSError(
                f"{path}: another process is writing to it; wait for its end, or name another place"
            ) from error
        self._size = self._whole()
        os.ftruncate(self._file, self._size)
        self._synced = time.monotonic()

    def _whole(self) -> int:
        """Bytes up to the end of the last whole line."""
        end = os.fstat(self._file).st_size
        while end:
            start = max(0, end - (1 << 16))
            at = os.pread(self._file, end - start, start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
        return 0

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes one row; after an OSError (a full disk, say) the file is as it was before."""
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            try:
                self._write(line)
            except OSError as error:
                os.ftruncate(self._file, self._size)
                raise OSError(error.errno, f"cannot write {self.path}: {error.strerror}") from error
            self._size += len(line)
            due = time.monotonic() - self._synced > SYNC_SECONDS
            if due:
                self._synced = time.monotonic()
        if due:  # not under the lock: a disk may take its time, and only this thread waits
            os.fdatasync(self._file)

    def _write(self, line: bytes) -> None:
        view = memoryview(line)
        while view:
            view = view[os.write(self._file, view) :]

    def close(self) -> None:
        """Brings all rows to the disk and gives the lock back."""
        with self._lock:
            os.fdatasync(self._file)
            os.close(self._file)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
