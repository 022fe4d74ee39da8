"""How a verb ends: what it raises, as lines on standard error and the exit code that goes with it.

0 done, 1 failed, 2 bad input, 130 interrupted (the same command goes on).
"""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from rrtf.report import kernel


@contextmanager
def exit_codes(*, interrupted: str = "interrupted; resume with the same command") -> Iterator[None]:
    """Turns what a verb raises into lines on stderr and the exit code that goes with them."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for library in ("torchao", "torch.utils._pytree"):  # they speak of kernels nobody asked for
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        yield
    except KeyboardInterrupt:
        _leave(interrupted, 130)
    except (ValueError, FileNotFoundError) as error:
        _leave(f"error: {error}", 2)
    except kernel.StageError as error:
        _leave(f"failed: {error}\nWhat was finished is kept; the same command goes on.", 1)
    except (OSError, FloatingPointError) as error:
        _leave(f"failed: {error}", 1)


def how_to_go_on(folder: Path | None, option: str = "--shards") -> str:
    """What an interrupted verb says of what it saved in `folder`, the value of `option`."""
    if folder:
        return f"interrupted; the same command goes on from {folder}"
    return f"interrupted; nothing is kept (with {option} DIR the same command would go on)"


def _leave(text: str, code: int) -> NoReturn:
    from rrtf import terminal

    print(f"\n{terminal.plain(text)}", file=sys.stderr, flush=True)
    raise typer.Exit(code)
