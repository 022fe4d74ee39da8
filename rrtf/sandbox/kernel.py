"""Linux's own fences, used directly: namespaces, Landlock, seccomp, rlimits.

Everything here acts on the calling process and cannot be taken back. Called once by a zygote
(`enter_namespaces`, `restrict_files`, `deny_system_calls`) and once by every process it forks
(`limit_resources`, `confine`). An OSError says that the host does not allow it.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Callable

MACHINE = platform.machine()

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
    "migrate_pages": (256, 238), "move_pages": (279, 239), "memfd_create": (319, 279),
}  # fmt: skip
_WORKER_CALLS = {
    "socketpair": (53, 199), "sendmsg": (46, 211), "recvmsg": (47, 212), "sendto": (44, 206),
    "sendmmsg": (307, 269), "recvmmsg": (299, 243),
    "fork": (57, -1), "vfork": (58, -1),
}  # fmt: skip
_ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH
_CLONE, _KILL, _TKILL, _TGKILL, _PRLIMIT = (56, 220), (62, 129), (200, 130), (234, 131), (302, 261)
_PIDFD_OPEN = 434
# From 424 on all machines share their numbers; what is newer than this list is unknown.
_NEW_ALLOWED = (436, 439, 441, 449, 452, 454, 455, 456)  # close_range, faccessat2, futexes, ...

_EPERM, _ENOSYS = 1, 38
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_OWN_PID = 0x7FFFFFFE  # a hole in a filter, filled after the fork
_CLONE_THREAD = 0x00010000

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_SYS_MOUNT_SETATTR, _SYS_LANDLOCK = 442, 444  # 444 to 446: create, add rule, restrict
_PDEATHSIG, _SET_SECCOMP, _NO_NEW_PRIVS, _SET_DUMPABLE, _SUBREAPER = 1, 22, 38, 4, 36

NOBODY = 65534
INNER_USER = 1000

libc = ctypes.CDLL(None, use_errno=True)


_fast_prctl = ctypes.CDLL(None).prctl
_fast_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)


def _do(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(option: int, value: int, pointer=None) -> None:
    _do("prctl", libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0))


def die_with_parent() -> None:
    _fast_prctl(_PDEATHSIG, signal.SIGKILL, 0)


def adopt_orphans() -> None:
    """Descendants whose parents end become children of the calling process."""
    _prctl(_SUBREAPER, 1)


def give_up_privileges() -> None:
    """No new privileges by exec, no capabilities, not traceable by equals."""
    _prctl(_NO_NEW_PRIVS, 1)
    header = struct.pack("<II", 0x20080522, 0)
    _do("capset", libc.syscall(_SYS_CAPSET[MACHINE], header, bytes(24)))
    _prctl(_SET_DUMPABLE, 0)


# --- what the interpreter needs to see ---------------------------------------------------------


def library_paths() -> list[str]:
    """Folders and files an interpreter reads while it runs; everything else can be hidden."""
    stdlib = os.path.dirname(os.__file__)
    shared = ["/usr/lib", "/lib", "/lib64", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    prefix = os.path.join(sys.base_prefix, "lib")
    found = [stdlib, *(p for p in sys.path if "dynload" in p), *shared]
    if "LD_LIBRARY_PATH" in os.environ:
        found.append(prefix)
    return [path for path in dict.fromkeys(found) if os.path.exists(path)]


DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


# --- namespaces --------------------------------------------------------------------------------


def _map_users(pid: int, lines: str) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", lines), ("gid_map", lines)):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)


def _unshare_as_root() -> None:
    """Two users inside: 0 to build the view, INNER_USER (nobody outside) to run candidates."""
    ready, go = os.pipe()
    me, helper = os.getpid(), os.fork()
    if helper == 0:
        failed = 1
        try:
            os.read(ready, 1)
            _map_users(me, f"0 0 1\n{INNER_USER} {NOBODY} 1\n")
            failed = 0
        finally:
            os._exit(failed)
    failure = None
    try:
        _unshare_all()
    except OSError as error:
        failure = error
        os.kill(helper, signal.SIGKILL)
    os.write(go, b"x")
    os.close(go)
    os.close(ready)
    _, status = os.waitpid(helper, 0)
    if failure or status:
        raise failure or OSError(_EPERM, "uid_map: the user mapping was refused")


def _unshare_all() -> None:
    flags = _NEWUSER | _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS
    _do("unshare", libc.unshare(flags))


def enter_namespaces(scratch_mb: int, scratch_files: int) -> None:
    """Continues as process 1 of new namespaces with a read-only view and a private /tmp.

    Only the child returns; the calling process waits for it and ends with it.
    """
    user, group = os.getuid(), os.getgid()
    if user == 0:
        _unshare_as_root()
    else:
        _unshare_all()
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{INNER_USER} {user} 1"),
            ("gid_map", f"{INNER_USER} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    child = os.fork()
    if child:
        os.closerange(0, 256)
        os.waitpid(child, 0)
        os._exit(0)
    die_with_parent()
    _build_view(scratch_mb, scratch_files)
    if user == 0 and os.stat(os.__file__).st_mode & 0o004:
        os.setresgid(INNER_USER, INNER_USER, INNER_USER)
        os.setresuid(INNER_USER, INNER_USER, INNER_USER)
        die_with_parent()


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    name = kind.encode() if kind else None
    result = libc.mount(
        source.encode(), target.encode(), name, ctypes.c_ulong(flags), options.encode()
    )
    _do(f"mount {target}", result)


def _set_read_only(target: str, attributes: int, *, recursive: bool) -> None:
    request = struct.pack("<QQQQ", attributes, 0, 0, 0)
    at = 0x8000 if recursive else 0
    result = libc.syscall(
        _SYS_MOUNT_SETATTR, -100, target.encode(), at, request, ctypes.c_size_t(len(request))
    )
    _do(f"mount_setattr {target}", result)


def _build_view(scratch_mb: int, scratch_files: int) -> None:
    root = "/proc"  # exists everywhere and holds nothing that is shown
    _mount("none", "/", None, _REC | _PRIVATE)
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=256k,nr_inodes=4096,mode=755")
    for path in (*library_paths(), *DEVICES):
        if os.path.islink(path):
            os.makedirs(root + os.path.dirname(path), exist_ok=True)
            os.symlink(os.readlink(path), root + path)
        else:
            _show(path, root + path)
    os.makedirs(root + "/tmp", exist_ok=True)
    options = f"size={scratch_mb}m,nr_inodes={scratch_files},mode=1777"
    _mount("tmpfs", root + "/tmp", "tmpfs", _NOSUID | _NODEV | _NOEXEC, options)
    os.chdir(root)
    _do("pivot_root", libc.syscall(_SYS_PIVOT_ROOT[MACHINE], b".", b"."))
    _do("umount", libc.umount2(b".", 2))
    os.chdir("/")
    _set_read_only("/", _RDONLY, recursive=False)


def _show(path: str, target: str) -> None:
    if os.path.isdir(path):
        if os.path.exists(target):
            return  # inside a folder that is shown already
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(path, target, None, _BIND | _REC)
    attributes = _NOSUID if path.startswith("/dev") else _RDONLY | _NOSUID | _NODEV
    _set_read_only(target, attributes, recursive=True)


# --- Landlock ----------------------------------------------------------------------------------

_READ = 1 << 2 | 1 << 3  # read file, read folder
_WRITE = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12  # no devices, sockets, fifos
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # number of file rights by ABI; 16 from ABI 5 on


def restrict_files(writable: str | None) -> None:
    """Files outside `library_paths`, the null devices and `writable` become unreachable."""
    abi = _do("landlock", libc.syscall(_SYS_LANDLOCK, None, ctypes.c_size_t(0), 1))
    every = (1 << _RIGHTS.get(abi, 16)) - 1
    attributes = struct.pack("<QQQ", every, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = _do("landlock", libc.syscall(_SYS_LANDLOCK, attributes, ctypes.c_size_t(size), 0))
    allowed = [(path, _READ) for path in library_paths()]
    allowed += [(path, 1 << 2 | 1 << 1) for path in DEVICES if os.path.exists(path)]
    if writable:
        allowed.append((writable, _READ | _WRITE | every & (1 << 13 | 1 << 14)))
    for path, rights in allowed:
        if not os.path.isdir(path):
            rights &= 1 << 1 | 1 << 2
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("<Qi", rights & every, beneath)
        _do("landlock", libc.syscall(_SYS_LANDLOCK + 1, rules, 1, rule, 0))
        os.close(beneath)
    _do("landlock", libc.syscall(_SYS_LANDLOCK + 2, rules, 0))
    os.close(rules)


# --- seccomp -----------------------------------------------------------------------------------


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)


_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


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
    _prctl(_SET_SECCOMP, 2, _filter(code, len(lines)))


def deny_system_calls(*, keep: tuple[int, ...] = (_PIDFD_OPEN,)) -> None:
    """The filter of a zygote and all its children: no sockets, tracing, mounting, keys, ..."""
    column, arch = _arch()
    lines = _prologue(arch)
    lines += _refuse([row[column] for row in _CALLS.values() if row[column] >= 0])
    allowed = (*_NEW_ALLOWED, *keep)
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
    for call in (_KILL, _TGKILL):
        lines += _only_for(call[column], (_OWN_PID,))
    lines += _only_for(_PRLIMIT[column], (0, _OWN_PID))
    lines.append(_op(_RETURN, _ALLOW))
    holes = [8 * i + 4 for i, line in enumerate(lines) if line[4:] == struct.pack("<I", _OWN_PID)]
    code = ctypes.create_string_buffer(b"".join(lines))
    program = ctypes.create_string_buffer(_filter(code, len(lines)))
    address = ctypes.addressof(program)

    def confine(keep=(code, program)) -> None:
        me = os.getpid()
        for hole in holes:
            struct.pack_into("<I", code, hole, me)
        if _fast_prctl(_SET_SECCOMP, 2, address):
            raise OSError(_EPERM, "seccomp: the filter was refused")

    return confine


def _filter(code: ctypes.Array, length: int) -> bytes:
    return struct.pack("HxxxxxxP", length, ctypes.addressof(code))


def _only_for(number: int, pids: tuple[int, ...]) -> list[bytes]:
    lines = [_op(_EQUAL, number, 0, len(pids) + 3), _op(_LOAD, _ARGUMENT)]
    lines += [_op(_EQUAL, pid, len(pids) - i, 0) for i, pid in enumerate(pids)]
    return [*lines, _op(_RETURN, _ERRNO | _EPERM), _op(_RETURN, _ALLOW)]


# --- resource limits ---------------------------------------------------------------------------


def limit_cpu(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def limit_resources(*, memory_mb: int, file_mb: int, processes: int) -> None:
    """Hard limits: MiB of address space, MiB per file, tasks of the user (0: as they are)."""
    memory, size = memory_mb << 20, file_mb << 20
    limits = {
        "RLIMIT_AS": memory,
        "RLIMIT_FSIZE": size,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": processes,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_SIGPENDING": 64,
        "RLIMIT_MSGQUEUE": 0,
    }
    for name, value in limits.items():
        kind = getattr(resource, name, None)
        if kind is None or (name == "RLIMIT_NPROC" and not processes):
            continue
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
