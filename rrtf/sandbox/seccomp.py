"""System calls that are refused: two seccomp filters, written in the kernel's BPF."""

import ctypes
import os
import struct
from collections.abc import Callable

from rrtf.sandbox.kernel import MACHINE, fast_prctl, prctl

# name: (x86-64, aarch64); from the kernel's system call tables, -1 where there is none
_CALLS = {
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242),
    "bind": (49, 200), "listen": (50, 201), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "mknod": (133, -1),
    "mknodat": (259, 33), "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, -1),
    "ioperm": (173, -1), "init_module": (175, 105), "delete_module": (176, 106),
    "finit_module": (313, 273), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "quotactl": (179, 60), "acct": (163, 89), "settimeofday": (164, 170),
    "adjtimex": (159, 171), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "perf_event_open": (298, 241), "bpf": (321, 280), "userfaultfd": (323, 282),
    "fanotify_init": (300, 262), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "lookup_dcookie": (212, 18), "personality": (135, 92),
    "modify_ldt": (154, -1), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197),
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "io_setup": (206, 0),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274), "sched_setaffinity": (203, 122), "ioprio_set": (251, 30),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    "inotify_init": (253, -1), "inotify_init1": (294, 26), "sync": (162, 81), "syncfs": (306, 267),
    "syslog": (103, 116),
}  # fmt: skip
# What changes a file, or reads of it what is not its content, without opening it: Landlock does
# not restrict it, the mode bits of the user who runs the sandbox do not either. Only in a view
# and a scratch folder of its own a program may do this.
_METADATA_CALLS = {
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, -1),
    "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1),
    "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88), "truncate": (76, 45),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "fchmodat2": (452, 452), "readlink": (89, -1), "readlinkat": (267, 78), "getxattr": (191, 8),
    "lgetxattr": (192, 9), "fgetxattr": (193, 10), "listxattr": (194, 11), "llistxattr": (195, 12),
    "flistxattr": (196, 13),
}  # fmt: skip
_WORKER_CALLS = {
    "sendmsg": (46, 211), "recvmsg": (47, 212), "sendmmsg": (307, 269), "recvmmsg": (299, 243),
    "fork": (57, -1), "vfork": (58, -1), "memfd_create": (319, 279),
}  # fmt: skip
# What an event loop wakes itself with: two connected ends inside the process, which can send
# neither descriptors nor to anybody else.
_SOCKETPAIR, _SENDTO = (53, 199), (44, 206)
_UNIX, _STREAMS = 1, tuple(1 | flags for flags in (0, 0x800, 0x80000, 0x80800))
# Locks hold for a file, whoever has it open, so they would be seen by other programs. Alone in its
# process a program gets every lock: such calls do nothing and succeed.
_FLOCK, _FCNTL_LOCKS = (73, 32), (6, 7, 37, 38)
_ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH
_CLONE, _KILL, _TKILL, _TGKILL, _PRLIMIT = (56, 220), (62, 129), (200, 130), (234, 131), (302, 261)
_FCNTL, _IOCTL, _PRCTL = (72, 25), (16, 29), (157, 167)
# F_SETOWN, F_SETSIG, F_SETOWN_EX (signals to others), F_SETLEASE, F_NOTIFY, hints kept with a file
_FCNTL_DENIED = (8, 10, 15, 1024, 1026, 1036, 1038)
_IOCTL_ALLOWED = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # what `isatty` and pipes use
_PDEATHSIG = 1
_PIDFD_OPEN = 434
# From 424 on all machines share their numbers; what is newer than this list is unknown.
_NEW_ALLOWED = (436, 439, 441, 449, 452, 454, 455, 456)  # close_range, faccessat2, futexes, ...

_EPERM, _ENOSYS = 1, 38
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_OWN_PID = 0x7FFFFFFE  # a hole in a filter, filled after the fork
_CLONE_THREAD = 0x00010000

_SET_SECCOMP = 22


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)


_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; arguments have 8 bytes


def _prologue(arch: int) -> list[bytes]:
    """Kills what uses another machine's numbers (i386 and x32 calls on x86-64)."""
    lines = [
        _op(_LOAD, _ARCH),
        _op(_EQUAL, arch, 1, 0),
        _op(_RETURN, _KILL_PROCESS),
        _op(_LOAD, _NUMBER),
    ]
    if MACHINE == "x86_64":
        lines += [_op(_AT_LEAST, 0x40000000, 0, 1), _op(_RETURN, _KILL_PROCESS)]
    return lines


def _refuse(numbers: list[int]) -> list[bytes]:
    lines = []
    for number in numbers:
        lines += [_op(_EQUAL, number, 0, 1), _op(_RETURN, _ERRNO | _EPERM)]
    return lines


def _install(lines: list[bytes]) -> None:
    code = ctypes.create_string_buffer(b"".join(lines))
    prctl(_SET_SECCOMP, 2, _filter(code, len(lines)))


def deny_system_calls(*, has_scratch: bool) -> None:
    """The filter of a zygote and all its children: no sockets, tracing, mounting, keys, ...

    `has_scratch`: there are files of its own, whose modes and times may be changed.
    """
    column, arch = _arch()
    calls = _CALLS if has_scratch else _CALLS | _METADATA_CALLS
    lines = _prologue(arch)
    lines += _refuse([row[column] for row in calls.values() if row[column] >= 0])
    lines += _only_for(_IOCTL[column], _IOCTL_ALLOWED, argument=1)
    commands = dict.fromkeys(_FCNTL_DENIED, _REFUSED) | dict.fromkeys(_FCNTL_LOCKS, _NOTHING)
    lines += _by_argument(_FCNTL[column], 1, commands, _ALLOW)
    lines += [_op(_EQUAL, _FLOCK[column], 0, 1), _op(_RETURN, _NOTHING)]
    allowed = (*_NEW_ALLOWED, _PIDFD_OPEN)
    lines.append(_op(_AT_LEAST, 424, 0, len(allowed) + 1))
    lines += [_op(_EQUAL, number, len(allowed) - i, 0) for i, number in enumerate(allowed)]
    lines += [_op(_RETURN, _ERRNO | _ENOSYS), _op(_RETURN, _ALLOW)]
    _install(lines)


def _arch() -> tuple[int, int]:
    if MACHINE not in _ARCHES:
        raise OSError(_ENOSYS, f"no system call table for {MACHINE}")
    return _ARCHES[MACHINE]


def confinement(*, receives: bool = False) -> Callable[[], None]:
    """Prepares the second filter, of a process that runs foreign code: alone, it stays alone.

    No child processes (threads are allowed), no signals to others, no limits of others, no
    messages; `receives` lets the judge take the worker's descriptor. What is returned installs
    it; built beforehand because every page that a fresh fork touches costs microseconds.
    """
    column, arch = _arch()
    denied = [row[column] for row in _WORKER_CALLS.values() if row[column] >= 0]
    if receives:
        denied = [n for n in denied if n != _WORKER_CALLS["recvmsg"][column]]
    lines = _prologue(arch) + _refuse([*denied, _TKILL[column]])
    lines += [
        _op(_EQUAL, _CLONE[column], 0, 4),
        _op(_LOAD, _ARGUMENT),
        _op(_ANY_BIT, _CLONE_THREAD, 1, 0),
        _op(_RETURN, _ERRNO | _EPERM),
        _op(_RETURN, _ALLOW),
    ]
    lines += _refuse_unless(_SOCKETPAIR[column], 0, _UNIX)
    lines += _only_for(_SOCKETPAIR[column], _STREAMS, argument=1)
    lines += _only_for(_SENDTO[column], (0,), argument=5)
    for call in (_KILL, _TGKILL):
        lines += _only_for(call[column], (_OWN_PID,))
    lines += _only_for(_PRLIMIT[column], (0, _OWN_PID))
    lines += _except_for(_PRCTL[column], (_PDEATHSIG,))
    lines.append(_op(_RETURN, _ALLOW))
    holes = [8 * i + 4 for i, line in enumerate(lines) if line[4:] == struct.pack("<I", _OWN_PID)]
    code = ctypes.create_string_buffer(b"".join(lines))
    program = ctypes.create_string_buffer(_filter(code, len(lines)))
    address = ctypes.addressof(program)

    def confine(keep=(code, program)) -> None:
        me = os.getpid()
        for hole in holes:
            struct.pack_into("<I", code, hole, me)
        if fast_prctl(_SET_SECCOMP, 2, address):
            raise OSError(_EPERM, "seccomp: the filter was refused")

    return confine


def _filter(code: ctypes.Array, length: int) -> bytes:
    return struct.pack("HxxxxxxP", length, ctypes.addressof(code))


_REFUSED, _NOTHING = _ERRNO | _EPERM, _ERRNO  # the latter: succeeds without being carried out


def _only_for(number: int, values: tuple[int, ...], *, argument: int = 0) -> list[bytes]:
    """Call `number` is allowed where its argument is one of `values`, else refused."""
    return _by_argument(number, argument, dict.fromkeys(values, _ALLOW), _REFUSED)


def _except_for(number: int, values: tuple[int, ...], *, argument: int = 0) -> list[bytes]:
    """Call `number` is refused where its argument is one of `values`, else allowed."""
    return _by_argument(number, argument, dict.fromkeys(values, _REFUSED), _ALLOW)


def _by_argument(
    number: int, argument: int, actions: dict[int, int], otherwise: int
) -> list[bytes]:
    """What is done with call `number`, by the value of one of its arguments."""
    lines = [_op(_LOAD, _ARGUMENT + 8 * argument)]
    for value, action in actions.items():
        lines += [_op(_EQUAL, value, 0, 1), _op(_RETURN, action)]
    lines.append(_op(_RETURN, otherwise))
    return [_op(_EQUAL, number, 0, len(lines)), *lines]


def _refuse_unless(number: int, argument: int, value: int) -> list[bytes]:
    """Call `number` is refused where its argument is not `value`; else the filter goes on."""
    lines = [_op(_LOAD, _ARGUMENT + 8 * argument), _op(_EQUAL, value, 1, 0)]
    lines += [_op(_RETURN, _REFUSED), _op(_LOAD, _NUMBER)]
    return [_op(_EQUAL, number, 0, len(lines)), *lines]
