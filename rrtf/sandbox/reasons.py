"""The one table of reasons: what an `Execution.reason` says, and which situation it belongs to.

A verdict's situation (`rrtf.records.Outcome`) is one of the paper's four; the reason says why.
Beside the rows below a reason may be the name of an exception (`ValueError`): RUNTIME_ERROR when
loading the program or every assertion raised, FAILED_TESTS when the first failed assertion did.
"""

import errno

COMPILE_ERROR, RUNTIME_ERROR, FAILED_TESTS, PASS = (
    "COMPILE_ERROR",
    "RUNTIME_ERROR",
    "FAILED_TESTS",
    "PASS",
)

REASONS: dict[str, tuple[str, str]] = {
    "": (PASS, "every assertion held"),
    "syntax": (COMPILE_ERROR, "Python's compiler refuses the source"),
    "null_bytes": (COMPILE_ERROR, "the source holds a null byte"),
    "encoding": (COMPILE_ERROR, "the source is not valid Unicode"),
    "source_too_long": (COMPILE_ERROR, "the source is longer than a megabyte"),
    "parser": (COMPILE_ERROR, "the compiler ran out of stack, memory or time"),
    "missing_entry_point": (COMPILE_ERROR, "the program does not define the function asked for"),
    "cpu_time": (RUNTIME_ERROR, "the CPU time of all calls together ran out"),
    "wall_time": (RUNTIME_ERROR, "the program waited longer than the wall limit"),
    "memory": (RUNTIME_ERROR, "an allocation beyond the memory limit"),
    "output_limit": (RUNTIME_ERROR, "a file or the output grew beyond its limit"),
    "quota": (RUNTIME_ERROR, "scratch space, inodes or descriptors ran out"),
    "process_limit": (RUNTIME_ERROR, "no further thread or process could be started"),
    "refused": (RUNTIME_ERROR, "a system call or path outside the sandbox"),
    "early_exit": (RUNTIME_ERROR, "the program ended itself before the tests ended"),
    "signal": (RUNTIME_ERROR, "died of a signal; written with its number, `signal_11`"),
    "protocol_violation": (RUNTIME_ERROR, "the program wrote to, or closed, the value channel"),
    "judge_limit": (RUNTIME_ERROR, "the tests could not be finished on the values it returned"),
    "wrong_value": (FAILED_TESTS, "an assertion was false"),
    "wrong_type": (FAILED_TESTS, "an assertion was false of a value outside the closed types"),
}

FATAL = frozenset(
    ("cpu_time", "wall_time", "output_limit", "early_exit", "protocol_violation", "memory")
)

_OF_ERRNO = {
    **dict.fromkeys((errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSYS, errno.EXDEV), "refused"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE), "quota"),
    errno.EFBIG: "output_limit",
    errno.ENOMEM: "memory",
}


def of_exception(error: BaseException) -> str:
    """The reason an exception of a candidate stands for; its class name where nothing fits.

    Asks `type` rather than the exception, whose class may be anything.
    """
    kind = type(error)
    if issubclass(kind, MemoryError):
        return "memory"
    if issubclass(kind, OSError):
        reason = _OF_ERRNO.get(OSError.errno.__get__(error))
        if reason:
            return reason
    if kind is RuntimeError and error.args == ("can't start new thread",):
        return "process_limit"
    return type.__dict__["__name__"].__get__(kind)


def is_fatal(reason: str) -> bool:
    """Whether one such event decides the verdict, whatever the other assertions say."""
    return reason in FATAL or reason.startswith("signal_")
