"""Linux's own fences, used directly: namespaces, Landlock, seccomp, rlimits.

Everything here acts on the calling process and cannot be taken back. Called once by a zygote
(`enter_namespaces`, `restrict_files`, `deny_system_calls`) and once by every process it forks
(`limit_resources`, `confine`). An OSError says that the host does not allow it.
"""

import _signal as signal
import ctypes
import gc
import os
import resource
import select
import stat
import struct
import sys

MACHINE = os.uname().machine

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
_EPERM = 1
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_SYS_MOUNT_SETATTR, _SYS_LANDLOCK = 442, 444  # 444 to 446: create, add rule, restrict
_PDEATHSIG, _NO_NEW_PRIVS, _SET_DUMPABLE, _SUBREAPER = 1, 38, 4, 36

NOBODY = 65534
INNER_USER = 1000

libc = ctypes.CDLL(None, use_errno=True)


fast_prctl = ctypes.CDLL(None).prctl
fast_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)


def check(what: str, result: int) -> int:
    """`result` of a C call, or the OSError that its errno says; `what` names the call."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int, pointer: bytes | None = None) -> None:
    """prctl(2), with an OSError where it fails."""
    check("prctl", libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0))


def die_with_parent() -> None:
    """SIGKILL for this process when its parent ends."""
    fast_prctl(_PDEATHSIG, signal.SIGKILL, 0)


_python = ctypes.PyDLL(None)


def bare_fork() -> int:
    """fork(2) without CPython's own steps after it: they touch pages, and are for threads.

    So it is right only in a process with one thread whose modules want nothing done after a fork.
    """
    pid = _python.fork()
    if pid < 0:
        raise OSError("fork failed")
    return pid


def reap() -> None:
    """Waits for all children to end. (`os.waitpid` makes an exception where there are none.)"""
    while _python.waitpid(-1, None, 0) > 0:
        pass


def has_ended(pid: int, milliseconds: int) -> bool:
    """Whether a child is dead, or dies within a moment; it is still to be waited for."""
    file = os.pidfd_open(pid)
    watch = select.poll()
    watch.register(file, select.POLLIN)
    ended = bool(watch.poll(milliseconds))
    os.close(file)
    return ended


def adopt_orphans() -> None:
    """Descendants whose parents end become children of the calling process."""
    prctl(_SUBREAPER, 1)


def become_nobody(folder: str) -> bool:
    """Root becomes the user nobody, owner of `folder` ('': none); whether it is unprivileged now.

    Root stays root where nobody could not read the interpreter's own files or what is `shown`.
    """
    if os.getuid() != 0:
        return True
    if not all(_is_open(path, *_folders(path)) for path in _interpreter()):
        return False
    if folder:
        os.chown(folder, NOBODY, NOBODY)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl(_SET_DUMPABLE, 1)  # keeps /proc/self its own
    return True


def _interpreter() -> list[str]:
    """The standard library and what is shown of packages."""
    return [path for path in (os.path.dirname(os.__file__), *shown) if os.path.exists(path)]


def _is_open(path: str, *folders: str) -> bool:
    """Whether anybody can read a file or folder that lies in these folders."""
    mode = os.stat(path).st_mode
    readable = mode & (0o005 if stat.S_ISDIR(mode) else 0o004)
    passable = all(os.stat(folder).st_mode & 0o001 for folder in folders)
    return passable and readable == (0o005 if stat.S_ISDIR(mode) else 0o004)


def _folders(path: str) -> list[str]:
    """The folder of a file, that folder's folder, ... up to the root."""
    folder = os.path.dirname(os.path.realpath(path))
    return [folder] if folder == "/" else [folder, *_folders(folder)]


def user_tasks() -> int:
    """Threads of this user's processes: what RLIMIT_NPROC counts outside of a user namespace."""
    user, total = os.getuid(), 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == user:
                    total += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                continue  # it has ended meanwhile
    return total


def give_up_privileges() -> None:
    """No new privileges by exec, no capabilities, not traceable by equals."""
    prctl(_NO_NEW_PRIVS, 1)
    header = struct.pack("<II", 0x20080522, 0)
    check("capset", libc.syscall(_SYS_CAPSET[MACHINE], header, bytes(24)))
    prctl(_SET_DUMPABLE, 0)


shown: list[str] = []  # folders and files of packages that candidates may import


def library_paths() -> list[str]:
    """Folders and files an interpreter reads while it runs; everything else can be hidden."""
    stdlib = os.path.dirname(os.__file__)
    shared = ["/usr/lib", "/lib", "/lib64", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    prefix = os.path.join(sys.base_prefix, "lib")
    found = [stdlib, *(p for p in sys.path if "dynload" in p), *shared]
    if "LD_LIBRARY_PATH" in os.environ:
        found.append(prefix)
    return [path for path in dict.fromkeys([*found, *shown]) if os.path.exists(path)]


DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


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
            die_with_parent()
            os.close(go)  # or the end of a parent that has just been killed would not be read
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
    check("unshare", libc.unshare(flags))


def enter_namespaces(scratch_mb: int, scratch_files: int) -> set[str]:
    """Continues as process 1 of new namespaces with a read-only view and a private /tmp.

    Only the child returns, with the names in /tmp that belong to the view; the calling process
    waits for it and ends with it.
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
    if user == 0 and all(map(_is_open, _interpreter())):
        os.chown("/tmp", INNER_USER, INNER_USER)
        os.setresgid(INNER_USER, INNER_USER, INNER_USER)
        os.setresuid(INNER_USER, INNER_USER, INNER_USER)
        die_with_parent()
    return set(_in_scratch())


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    name = kind.encode() if kind else None
    result = libc.mount(
        source.encode(), target.encode(), name, ctypes.c_ulong(flags), options.encode()
    )
    check(f"mount {target}", result)


def _set_read_only(target: str, attributes: int, *, recursive: bool) -> None:
    request = struct.pack("<QQQQ", attributes, 0, 0, 0)
    at = 0x8000 if recursive else 0
    result = libc.syscall(
        _SYS_MOUNT_SETATTR, -100, target.encode(), at, request, ctypes.c_size_t(len(request))
    )
    check(f"mount_setattr {target}", result)


def _build_view(scratch_mb: int, scratch_files: int) -> None:
    """A root with the library, devices and a scratch folder at /tmp.

    What is shown of a real /tmp keeps its place there, inside a read-only folder of its own.
    """
    root = "/proc"  # exists everywhere and holds nothing that is shown
    _mount("none", "/", None, _REC | _PRIVATE)
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=256k,nr_inodes=4096,mode=755")
    os.makedirs(root + "/tmp")
    options = f"size={scratch_mb}m,nr_inodes={scratch_files},mode=1777"
    _mount("tmpfs", root + "/tmp", "tmpfs", _NOSUID | _NODEV | _NOEXEC, options)
    for name, paths in _in_scratch().items():
        if [f"/tmp/{name}"] != paths:
            os.makedirs(f"{root}/tmp/{name}")
            small = "size=256k,nr_inodes=4096,mode=755"
            _mount("tmpfs", f"{root}/tmp/{name}", "tmpfs", _NOSUID | _NODEV, small)
    for path in sorted((*library_paths(), *DEVICES), key=len):  # a folder before what is in it
        _show(path, root + path)
    for name in _in_scratch():
        _set_read_only(f"{root}/tmp/{name}", _RDONLY, recursive=False)
    _name_host(root)
    os.chdir(root)
    check("pivot_root", libc.syscall(_SYS_PIVOT_ROOT[MACHINE], b".", b"."))
    check("umount", libc.umount2(b".", 2))
    os.chdir("/")
    _set_read_only("/", _RDONLY, recursive=False)


def _in_scratch() -> dict[str, list[str]]:
    """Names in /tmp that are shown or hold something that is shown: what."""
    found: dict[str, list[str]] = {}
    for path in library_paths():
        if path.startswith("/tmp/"):
            found.setdefault(path.split("/")[2], []).append(path)
    return found


def _name_host(root: str) -> None:
    """The only host there is: this one. Its name is looked up in a file, without a socket."""
    check("sethostname", libc.sethostname(b"localhost", ctypes.c_size_t(9)))
    os.makedirs(root + "/etc", exist_ok=True)
    for name, text in (("hosts", "127.0.0.1 localhost\n"), ("nsswitch.conf", "hosts: files\n")):
        with open(f"{root}/etc/{name}", "w") as file:
            file.write(text)
        shown.append(f"/etc/{name}")


def _show(path: str, target: str) -> None:
    if os.path.isdir(path):
        if os.path.exists(target):
            return  # inside a folder that is shown already
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(path, target, None, _BIND | _REC)
    # Devices can be written to on a read-only mount; their modes and times cannot be changed.
    attributes = _RDONLY | _NOSUID | (0 if path in DEVICES else _NODEV)
    _set_read_only(target, attributes, recursive=True)


_READ = 1 << 2 | 1 << 3  # read file, read folder
_WRITE = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12  # no devices, sockets, fifos
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # number of file rights by ABI; 16 from ABI 5 on


def restrict_files(writable: str | None) -> None:
    """Files outside `library_paths`, the null devices and `writable` become unreachable."""
    abi = check("landlock", libc.syscall(_SYS_LANDLOCK, None, ctypes.c_size_t(0), 1))
    every = (1 << _RIGHTS.get(abi, 16)) - 1
    attributes = struct.pack("<QQQ", every, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = check("landlock", libc.syscall(_SYS_LANDLOCK, attributes, ctypes.c_size_t(size), 0))
    allowed = [(path, _READ) for path in library_paths()]
    allowed += [(path, 1 << 2 | 1 << 1) for path in DEVICES if os.path.exists(path)]
    if writable:
        allowed.append((writable, _READ | _WRITE | every & (1 << 13 | 1 << 14)))
    for path, rights in allowed:
        if not os.path.isdir(path):
            rights &= 1 << 1 | 1 << 2
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("<Qi", rights & every, beneath)
        check("landlock", libc.syscall(_SYS_LANDLOCK + 1, rules, 1, rule, 0))
        os.close(beneath)
    check("landlock", libc.syscall(_SYS_LANDLOCK + 2, rules, 0))
    os.close(rules)


def limit_cpu(seconds: int) -> None:
    """SIGKILL after so many CPU seconds: the backstop of the zygote's own clock."""
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


ROUNDS = 3  # samples served: enough for all that the interpreter sets up once

# CPython's small-object allocator: sizes it serves, bytes of a pool, where a pool's blocks begin.
_BLOCKS, _POOL, _FIRST = range(16, 513, 16), 1 << 14, 48
_BYTES_HEADER, _MOST_BLOCKS = 33, 1 << 14
_filling: list[object] = []

SAMPLE = """
from typing import List, Optional
import math
def add(a: List[int], b: int = 0) -> List[int]:
    seen = {}
    for i, x in enumerate(sorted(a)):
        seen[x] = seen.get(x, 0) + len(str(i)) * 1.0
    return [x + b for x in a if x in seen and "%d" % x] or None
class Box:
    def __init__(self, value):
        self.value = value
"""
SAMPLE_TESTS = """
def check(candidate):
    total = 0
    for b in range(2):
        assert candidate([3, 1], b) == [3 + b, 1 + b], "sum"
    assert abs(candidate([1])[0] - 1) < 1e-6
    candidate([2])
"""


def freeze() -> None:
    """Makes forking cheap: a child should write to few of the pages that it shares.

    Every page a child writes first is copied, which is most of what a short process costs. So the
    collector keeps away from what exists by now, and holes between these objects are filled: what
    children allocate lies together on fresh pages, not scattered over old ones.
    """
    gc.collect()
    gc.disable()
    for size in _BLOCKS:
        _fill(size)
    gc.freeze()
    gc.enable()  # children want it on, and here there is little left to collect


def _fill(size: int) -> None:
    """Takes blocks of `size` bytes until one comes from the beginning of a pool of its own."""
    for _ in range(_MOST_BLOCKS):
        block = bytes(size - _BYTES_HEADER) if size > _BYTES_HEADER else _small(size)
        _filling.append(block)
        if id(block) % _POOL == _FIRST:
            return


def _small(size: int) -> object:
    return object() if size == 16 else float(len(_filling))
