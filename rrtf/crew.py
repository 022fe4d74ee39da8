"""Jobs worked off by this process and helpers of its own machine, each taking the next one.

A helper takes its first job when it has loaded what it needs, so this process never waits for
one to start, and a list that is done by then was done without it.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_context
from typing import Any, TypeVar

from rrtf import config

Job = TypeVar("Job")


def work_off(
    work: Callable[[Job], None],
    jobs: Sequence[Job],
    *,
    helpers: int,
    ready: Callable[[], bool],
    progress: Callable[[int], None],
) -> None:
    """`work(job)` for every job, here and by `helpers` fresh processes of one thread each.

    A helper calls `ready` first and leaves if that is false. Results lie where `work` puts them;
    `progress` is told how many jobs are done. A job that fails ends the call with its error, a
    helper that is killed with an OSError; whatever ends the call ends the helpers.
    """
    context = get_context("spawn")
    begun = context.Value("l", 0)
    crew = [_hire(context, (work, list(jobs), begun, ready)) for _ in range(helpers)]
    done = 0
    try:
        for number in _numbers(begun, len(jobs)):
            work(jobs[number])
            done += 1 + _heard(crew, wait=False)
            progress(done)
        while done < len(jobs):
            done += _heard(crew, wait=True)
            progress(done)
    finally:
        for process, pipe in crew:
            process.terminate()
            process.join()
            pipe.close()


def _numbers(begun: Any, total: int) -> Iterator[int]:
    """The jobs that nobody has begun, each as it is taken."""
    while True:
        with begun.get_lock():
            number = begun.value
            begun.value += 1
        if number >= total:
            return
        yield number


def _hire(context: Any, task: tuple) -> tuple[Any, connection.Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_help, args=(theirs, *task), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends with the process
    return process, ours


def _help(
    pipe: connection.Connection,
    work: Callable[[Job], None],
    jobs: Sequence[Job],
    begun: Any,
    ready: Callable[[], bool],
) -> None:
    """What a helper does; it says True for every job done, and as its last word False or an error.

    A caller that was killed is noticed when it is told of a job.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller is interrupted, and ends its helpers
    config.set_threads(1)
    try:
        try:
            for number in _numbers(begun, len(jobs)) if ready() else ():
                work(jobs[number])
                pipe.send(True)
            pipe.send(False)
        except Exception as error:
            pipe.send(error)
    except BrokenPipeError:
        pass


def _heard(crew: list[tuple[Any, connection.Connection]], *, wait: bool) -> int:
    """How many jobs the helpers say are done since they were heard last."""
    done = 0
    pipes = [pipe for _, pipe in crew if not pipe.closed]
    for pipe in connection.wait(pipes, None if wait else 0):
        try:
            said = pipe.recv()
        except EOFError:
            raise OSError("a helping process was killed; what was finished is kept") from None
        if isinstance(said, Exception):
            raise said
        if not said:
            pipe.close()
        done += said
    return done
