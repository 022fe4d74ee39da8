"""The fences around programs: their levels, users and hosts, and that nothing is left behind."""

import contextlib
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import LIMITS, call, execute, wait_until

from rrtf.records import Response
from rrtf.sandbox import executor, lanes, wire

ROOT = Path(__file__).resolve().parent.parent


def hostile(name: str) -> str:
    return (ROOT / "tests" / "hostile" / f"{name}.py").read_text()


def respond(*programs: str, task_id: str = "t") -> list[Response]:
    return [Response(task_id, "model", i, "", program) for i, program in enumerate(programs)]


# --- levels ------------------------------------------------------------------------------------


def levels() -> tuple[str, ...]:
    """The kernel-enforced levels of this host."""
    strong = lanes.LEVELS[:2]
    found = strong[strong.index(lanes.probe()) :] if lanes.probe() in strong else ()
    if not found:
        pytest.skip("this host allows neither namespaces nor Landlock")
    return found


@pytest.fixture(params=lanes.LEVELS[:2])
def level(request) -> str:
    """One of the kernel-enforced levels, if this host allows it."""
    if request.param not in levels():
        pytest.skip(f"this host does not allow {request.param}")
    return request.param


def test_levels_agree_and_are_recorded(add_problem):
    programs = ["def add(a, b): return a + b", "def add(a, b): return 3", "def add("]
    responses = respond(*programs, task_id=add_problem.task_id)
    runs = {level: execute([add_problem], responses, exactly=level) for level in levels()}
    assert len({tuple((e.outcome, e.n_passed) for e in run) for run in runs.values()}) == 1
    assert all(e.isolation == level for level, run in runs.items() for e in run)


def test_below_the_demanded_level_it_refuses_and_says_what_to_do(add_problem, monkeypatch):
    monkeypatch.setattr("rrtf.sandbox.lanes.probe", lambda: "process")
    with pytest.raises(RuntimeError, match="isolation='process'"):
        execute([add_problem], [])
    with pytest.raises(ValueError, match="unknown isolation level"):
        execute([add_problem], [], isolation="strong")


# --- users and hosts ---------------------------------------------------------------------------

FENCED = (
    "import json, sys\nfrom rrtf.sandbox import executor, lanes\n"
    "from rrtf.records import Problem, Response\n"
    "limits = executor.Limits(2.0, 6.0, 512, 'landlock+seccomp')\n"
)
PROBE = (
    f"{FENCED}p = Problem('t', '', 'f', 'assert f() == 1')\n"
    "answers = [Response('t', 'm', 0, '', 'def f(): return 1')]\n"
    "e = executor.execute([p], answers, limits=limits, workers=1)\n"
    "print(lanes.probe(), e[0].outcome.name, e[0].isolation)\n"
)


DENY = (  # as container runtimes do it: by a filter that the sandbox inherits
    "import os, sys\nfrom rrtf.sandbox import kernel, seccomp\n"
    "column, arch = seccomp._arch()\nkernel.prctl(kernel._NO_NEW_PRIVS, 1)\n"
    "calls = [seccomp._CALLS[name][column] for name in ('unshare', 'setns', 'mount')]\n"
    "allow = [seccomp._op(seccomp._RETURN, seccomp._ALLOW)]\n"
    "seccomp._install(seccomp._prologue(arch) + seccomp._refuse(calls) + allow)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
)
FORBID = ["unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"']
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]


def run_python(*arguments: str, text: str = "") -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        arguments, input=text, capture_output=True, text=True, env=environment, timeout=60
    )


def ordinary_python() -> list[str]:
    """The start of a command line that runs Python as somebody who is not root."""
    if os.getuid() != 0:
        return [sys.executable]
    usable = "import os, sys, rrtf.sandbox; assert os.access(sys.executable, os.X_OK)"
    for python in (sys.executable, "/usr/bin/python3"):
        if shutil.which("setpriv") and not run_python(*NOBODY, python, "-c", usable).returncode:
            return [*NOBODY, python]
    pytest.skip("no `setpriv`, or no interpreter that another user can run")


def test_root_and_an_ordinary_user_get_the_same_level():
    strongest = levels()[0]
    for start in ([sys.executable], ordinary_python()):
        found = run_python(*start, "-c", PROBE)
        assert found.stdout.split() == [strongest, "PASS", strongest], found.stderr


def test_where_user_namespaces_are_switched_off_landlock_and_seccomp_serve():
    levels()
    if not shutil.which("unshare") or run_python("unshare", "-Ur", "true").returncode:
        pytest.skip("user namespaces are denied here already, or `unshare` is missing")
    found = run_python(*FORBID, "sh", sys.executable, "-c", PROBE)
    assert found.stdout.split() == ["landlock+seccomp", "PASS", "landlock+seccomp"], found.stderr


@pytest.mark.parametrize("who", ["the caller", "an ordinary user"])
def test_where_a_filter_denies_namespaces_landlock_and_seccomp_serve(who):
    levels()
    start = [sys.executable] if who == "the caller" else ordinary_python()
    found = run_python(*start, "-c", DENY, "-c", PROBE)
    assert found.stdout.split() == ["landlock+seccomp", "PASS", "landlock+seccomp"], found.stderr


def test_at_level_process_a_program_is_never_root():
    who = ("import os\ndef f(): return os.getuid(), os.geteuid(), os.getgid(), os.getgroups()", "f")
    try:
        (found,) = call([who], [()], isolation="process", exactly="process")
    except RuntimeError as error:
        assert os.getuid() == 0 and "as root, and nobody cannot read" in str(error)
        return
    user, effective, group, groups = found[0].value
    assert user == effective != 0
    assert os.getuid() or (user, group, groups) == (65534, 65534, [])


def test_at_the_enforced_levels_a_program_has_no_privilege_left(level):
    source = (
        "import ctypes, os\ndef f():\n    libc = ctypes.CDLL(None)\n"
        "    header = (ctypes.c_uint32 * 2)(0x20080522, 0)\n    held = (ctypes.c_uint32 * 6)()\n"
        "    return libc.prctl(39, 0, 0, 0, 0), libc.capget(header, held), list(held), os.getuid()"
    )
    (found,) = call([(source, "f")], [()], exactly=level)
    no_new_privileges, failed, capabilities, user = found[0].value
    assert no_new_privileges == 1 and not failed and not any(capabilities)
    assert user or level != "namespaces"


ON_FILES = (  # hostile programs whose effect depends on whose files they meet
    "changes_a_device", "changes_modes", "changes_times", "fills_disk", "hard_link", "kill_parent",
    "locks_its_folder", "many_files", "nested_folders", "prints_after_a_moved_output",
    "reads_by_link", "removes_the_library", "signals_by_descriptor", "sparse_file",
    "write_outside",
)  # fmt: skip
JUDGE = (
    f"{FENCED}programs = json.load(sys.stdin)\n"
    "tests = 'assert add(1, 2) == 3\\nassert add(0, 0) == 0\\nassert add(-1, 1) == 0'\n"
    "responses = [Response('t', '', i, '', p) for i, p in enumerate(programs)]\n"
    "found = executor.execute([Problem('t', '', 'add', tests)], responses, limits=limits,\n"
    "                         workers=1, exactly=sys.argv[1])\n"
    "print(json.dumps([[e.outcome.name, e.reason] for e in found]))\n"
)


def test_an_ordinary_users_files_and_the_next_programs_folder_are_safe_too(level):
    sources = [hostile(name) for name in ON_FILES]
    writes = "def add(a, b):\n    open('mine', 'w').close()\n    return a + b"
    run = run_python(*ordinary_python(), "-c", JUDGE, level, text=json.dumps([*sources, writes]))
    assert not run.returncode, run.stderr
    *verdicts, written = json.loads(run.stdout)
    for name, source, verdict in zip(ON_FILES, sources, verdicts, strict=True):
        outcome, *reasons = source.partition("# expect: ")[2].splitlines()[0].split()
        assert verdict[0] == outcome and (verdict[1] in reasons or not reasons), name
    assert written == (["PASS", ""] if level == "namespaces" else ["RUNTIME_ERROR", "refused"])


def test_the_page_on_security_lists_every_outcome_with_its_reasons():
    page = (ROOT / "SECURITY.md").read_text()
    table = ["| outcome | reason | when |", "| --- | --- | --- |"]
    for reason, (outcome, text) in wire.REASONS.items():
        table.append(f"| {outcome} | {f'`{reason}`' if reason else '(none)'} | {text} |")
    assert "\n".join(table) in page, "the table should be:\n" + "\n".join(table)
    assert all(f"`{level}`" in page for level in lanes.LEVELS)


# --- what is left ------------------------------------------------------------------------------


def stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty for what has ended."""
    try:
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return []
    return [] if fields[0] == "Z" else fields


def descendants(pid: int) -> dict[int, str]:
    """The processes that `pid` started, directly or not: number and start time."""
    found = {int(name): stat(name) for name in os.listdir("/proc") if name.isdigit()}
    family = {pid}
    while more := {n for n, f in found.items() if f and int(f[1]) in family} - family:
        family |= more
    return {number: found[number][19] for number in family - {pid}}


def living(processes: dict[int, str]) -> list[int]:
    return [n for n, started in processes.items() if (stat(n) or [""] * 20)[19] == started]


BUSY = (
    f"{FENCED}limits = executor.Limits(60, 60, 512, 'landlock+seccomp')\n"
    "p = Problem('t', '', 'f', 'assert f() == 1')\n"
    "s = 'import time\\ndef f(): time.sleep({0}) if {0} % 2 else [None for _ in iter(int, 1)]'\n"
    "executor.execute([p], [Response('t', 'm', i, '', s.format(100 + i)) for i in range(4)],\n"
    "    limits=limits, workers=2, exactly=sys.argv[1])\n"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_or_killed_caller_leaves_no_processes(tmp_path, number, level):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", BUSY, level]
    caller = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert wait_until(lambda: len(descendants(caller.pid)) >= 8, 30), caller.poll()
    started = descendants(caller.pid)
    caller.send_signal(number)
    _, errors = caller.communicate(timeout=20)
    assert wait_until(lambda: not living(started), 10), living(started)
    assert "KeyboardInterrupt" in errors or number != signal.SIGINT
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("level", lanes.LEVELS[2:])
def test_a_scratch_folder_on_the_disk_goes_also_when_the_caller_is_killed(level):
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    start = (
        "import os, signal, tempfile\nfrom rrtf.sandbox import lanes\n"
        f"lane = lanes.Lane({level!r}, lanes.settings_for(lanes._TRIAL, 0))\n"
        "assert len(os.listdir(tempfile.gettempdir())) == 1\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    found = subprocess.run(
        [sys.executable, "-c", start], env=environment, capture_output=True, text=True
    )
    if "nobody cannot read" not in found.stderr:
        assert found.returncode == -signal.SIGKILL, found.stderr
        assert wait_until(lambda: not list(folder.iterdir()), 10)
    folder.rmdir()


def test_a_run_leaves_no_processes_files_or_descriptors(tmp_path, monkeypatch, add_problem):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    programs = [
        "def add(a, b): return a + b",
        "import os\nfor _ in range(9): os.open('/dev/null', 0)\ndef add(a, b): os._exit(1)",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(9,)).start()\n"
        "def add(a, b): return a + b",
        "import os, time\ntry:\n    os.fork() or time.sleep(9)\nexcept OSError: pass\n"
        "def add(a, b): return a + b",
        "def add(a, b):\n    print('x' * 10**7)\n    return a + b",
    ]
    programs = [f"{program}\n# {i}" for i in range(20) for program in programs]
    responses = respond(*programs, task_id=add_problem.task_id)
    execute([add_problem], responses[:1])
    gc.collect()  # what earlier tests left may be closed at any time: it must not count
    before, others = len(os.listdir("/proc/self/fd")), descendants(os.getpid())
    found = execute([add_problem], responses)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert descendants(os.getpid()).items() <= others.items()  # others: of earlier tests
    assert not list(tmp_path.iterdir())
    kinds = [e.reason for e in found]
    assert kinds == ["", "early_exit", "", "", "output_limit"] * 20


def test_one_candidate_leaves_nothing_for_the_next():
    leaves = (
        "import os, sys, builtins\nos.environ['LEFT'] = '1'\nbuiltins.left = 1\nsys.left = 1\n"
        "try:\n    os.makedirs('a/b/c'); open('a/b/left', 'w').close(); os.chmod('a', 0)\n"
        "    os.symlink('/', 'link'); os.chdir('/')\nexcept OSError: pass\ndef f(): return 0\n"
    )
    looks = (
        "import os, sys, builtins\ndef f():\n    try: names = os.listdir('.')\n"
        "    except PermissionError: names = []\n    return (names, 'LEFT' in os.environ, "
        "hasattr(builtins, 'left'), hasattr(sys, 'left'))"
    )
    programs = [(leaves, "f"), (looks, "f"), (leaves + "\n", "f"), (looks + "\n", "f")]
    for level in levels():
        found = call(programs, [()], workers=1, exactly=level)
        for index in (1, 3):
            assert found[index][0].value == ([], False, False, False), level


LEAVES = {
    "nothing": "",
    "lock": "fcntl.fcntl(1, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 2077, 1, 0))",
    "posix lock": "fcntl.lockf(1, fcntl.LOCK_EX)",
    "flock": "fcntl.flock(open(os.__file__), fcntl.LOCK_EX)",
    "lock of a device": "fcntl.lockf(open('/dev/null', 'r+b', 0), fcntl.LOCK_EX)",
    "flags": "fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK | os.O_RDWR)",
    "append": "fcntl.fcntl(1, fcntl.F_SETFL, os.O_APPEND)", "position": "os.lseek(1, 100, 0)",
    "size": "os.truncate(1, 1 << 20)",
    "blocks": "ctypes.CDLL(None).fallocate(1, 1, ctypes.c_long(0), ctypes.c_long(1 << 20))",
    "hint": "fcntl.fcntl(1, 1036, struct.pack('Q', 3))", "mode": "os.fchmod(1, 0o123)",
    "times": "os.utime(1, (1, 2))", "seals": "fcntl.fcntl(1, 1033, 1)",
    "attribute": "os.setxattr(1, 'user.x', b'1')", "times of the folder": "os.utime('.', (1, 2))",
    "mode of the folder": "os.chmod('.', 0o711)", "file": "open('left', 'w').write('x')",
    "file and removed": "open('left', 'w').write('x'); os.unlink('left')",
    "environment": "os.environ['LEFT'] = '1'; os.putenv('X', 'y'); os.umask(0); os.chdir('/')",
    "output": "os.write(1, b'x' * 1000); os.write(2, b'y')",
    "limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))",
    "pipe": "fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)",
    "memory": "ctypes.memset(id(257) + 24, 7, 1)",
    "thread": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
    "timer": "signal.setitimer(signal.ITIMER_REAL, 50)",
}  # fmt: skip
LOOKS = """
import ctypes, fcntl, os, resource, signal, struct, threading
def attempt(action):
    try:
        return str(action())
    except OSError as error:
        return str(error.errno)
def locks(file):
    ask = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
    return [fcntl.fcntl(file, number, ask).hex() for number in (5, 36)]
def f(x):
    found = [attempt(lambda file=file: locks(file)) for file in (0, 1, 2)]
    found += [attempt(lambda: fcntl.flock(open(os.__file__), fcntl.LOCK_EX | fcntl.LOCK_NB))]
    found += [attempt(lambda: fcntl.lockf(0, fcntl.LOCK_EX | fcntl.LOCK_NB))]
    for file in (0, 1, 2):
        for number in (1, 3, 1034):
            found += [attempt(lambda: fcntl.fcntl(file, number))]
        found.append(attempt(lambda: fcntl.fcntl(file, 1035, bytes(8)).hex()))
        found.append(attempt(lambda: os.lseek(file, 0, 1)))
        state = os.fstat(file)
        found.append((state.st_blocks, state.st_size, oct(state.st_mode)))
        found.append(file == 0 or state.st_mtime > 100)
    folder = os.stat(".")
    found.append((folder.st_nlink, oct(folder.st_mode), folder.st_size))
    found.append(folder.st_mtime < 1 or not os.access(".", os.W_OK) or ON_DISK)
    found.append(attempt(lambda: sorted(os.listdir("."))) if x else "")
    found += [os.environ.get("LEFT"), oct(os.umask(0o22)), len(threading.enumerate())]
    found += [resource.getrlimit(resource.RLIMIT_NOFILE), signal.getitimer(signal.ITIMER_REAL)]
    found += [attempt(lambda: os.listxattr(file)) for file in (1, ".")]
    return found
""".replace("or ON_DISK", "")


@pytest.mark.parametrize("level", lanes.LEVELS[:3])
def test_no_program_sees_what_another_did_in_any_order(level):
    """What a program sees must be the same first of all, after every other, and in 200 orders."""
    try:
        call([("def f():\n    return 1", "f")], [()], exactly=level, isolation=level)
    except RuntimeError:
        pytest.skip(f"this host does not allow {level}")
    leaving = [
        f"{LOOKS}\nlook = f\ndef f(x):\n    seen = look(x)\n    try:\n        {action or 'pass'}\n"
        f"    except OSError: pass\n    return seen\n# {name}\n"
        for name, action in LEAVES.items()
    ]
    see = level == "namespaces"  # elsewhere there is no folder, or one that others may write to
    (alone,), *others = ([r.value for r in row] for row in call(
        [(LOOKS, "f"), *((text, "f") for text in leaving)], [(see,)],
        workers=1, exactly=level, isolation=level,
    ))  # fmt: skip
    assert all(found == [alone] for found in others)
    source, tries = random.Random(0), []
    for first in leaving:
        tries += [first, LOOKS + f"# {len(tries)}\n"]
    for _ in range(200):
        tries += [text + f"# {len(tries)}\n" for text in source.sample(leaving, 2)]
    found = call([(t, "f") for t in tries], [(see,)], workers=1, exactly=level, isolation=level)
    assert [row[0] for row in found if row[0].value != alone] == []


READS = """
import ctypes, os
def f(path):
    found = []
    for read in (os.readlink, os.listxattr, lambda p: os.getxattr(p, "user.x"), os.listdir,
                 lambda p: open(p).read(), os.scandir, lambda p: os.getxattr(p, "user.x",
                 follow_symlinks=False)):
        try:
            found.append(str(read(path)))
        except OSError:
            pass
    return found
"""


def test_no_program_reads_where_links_lead_or_what_is_written_beside_a_file(tmp_path, level):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("canary")
    link.symlink_to("canary")
    with contextlib.suppress(OSError):  # a file system that keeps none
        os.setxattr(file, "user.x", b"canary")
    asked = [(str(file),), (str(link),), ("/proc/self/exe",), ("/proc/self/cwd",)]
    (found,) = call([(READS, "f")], asked, exactly=level)
    assert [result.value for result in found] == [[]] * 4


EVENT_LOOPS = """
import array, asyncio, socket, threading
async def later(n):
    await asyncio.sleep(0)
    return n + await asyncio.get_running_loop().run_in_executor(None, int, "1")
async def both():
    return await asyncio.gather(later(1), asyncio.wait_for(later(2), 5))
def tries(*actions):
    found = []
    for action in actions:
        try:
            found.append(str(action()))
        except OSError as error:
            found.append(error.errno)
    return found
def f():
    one, other = socket.socketpair()
    one.send(b"x")
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))
    return asyncio.run(both()), other.recv(9), tries(
        lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
        lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
        lambda: one.sendmsg([b"x"], [rights]),
        lambda: one.sendto(b"x", "/run/systemd/journal/socket"),
        lambda: one.connect("/run/systemd/journal/socket"),
        lambda: one.bind("\\0name"), lambda: socket.socket(socket.AF_UNIX),
        lambda: socket.socket(socket.AF_INET), lambda: socket.socket(socket.AF_INET6),
    )
"""


def test_event_loops_run_and_their_sockets_reach_nobody(level):
    (found,) = call([(EVENT_LOOPS, "f")], [()], exactly=level)
    assert found[0].value == ([2, 3], b"x", [1] * 9), found


LIBRARIES = """
import bz2, lzma, ssl, sqlite3, zlib, hashlib, ctypes, decimal, json, zoneinfo
def f(path):
    with sqlite3.connect(path) as base:
        base.execute("create table t (n)")
        base.execute("insert into t values (?)", (len(bz2.decompress(bz2.compress(b"abc"))),))
        return base.execute("select n from t").fetchone()[0]
"""


def test_the_standard_librarys_own_shared_libraries_are_there(level):
    paths = [":memory:", "own.db"] if level == "namespaces" else [":memory:"]
    code = (
        f"{FENCED}source, level, paths = json.load(sys.stdin)\n"
        "(found,) = executor.call([(source, 'f')], [(p,) for p in paths], limits=limits,\n"
        "                         workers=1, exactly=level)\n"
        "print([r.value or r.error for r in found])\n"
    )
    pythons = {sys.executable, *filter(os.path.exists, ["/usr/bin/python3"])}
    for python in sorted(pythons):
        asked = json.dumps([LIBRARIES, level, paths])
        if not run_python(python, "-c", LIBRARIES).returncode:
            found = run_python(python, "-c", code, text=asked)
            assert found.stdout == f"{[3] * len(paths)}\n", (python, found.stderr)


FROM_A_FOLDER = FENCED + (
    "p = Problem('t', '', 'f', 'assert f() == 7')\n"
    "s = 'import here_only, os\\ndef f():\\n    from here_only import late\\n'\n"
    's += \'    try: open("mine", "w").close()\\n    except OSError: pass\\n\'\n'
    "s += '    return late.seven()\\n'\n"
    "found = executor.execute([p], [Response('t', 'm', i, '', s + '#' * i) for i in range(3)],\n"
    "    exactly=sys.argv[1], packages=('here_only',), workers=1, limits=limits)\n"
    "print(*{e.outcome.name + e.reason for e in found})\n"
)


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs /dev/shm")
@pytest.mark.parametrize("where", ["/tmp", "/dev/shm", "a home", "a link", "a file"])
def test_packages_are_found_wherever_the_environment_lies(tmp_path, where, level):
    base = where if where.startswith("/") else "/var/tmp"
    folder = Path(tempfile.mkdtemp(prefix="of its own ", dir=base))
    try:
        site = folder / "with spaces" / "site"
        package = site / "here_only"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "late.py").write_text("def seven():\n    return 7\n")
        if where == "a home":
            folder.chmod(0o700)
        else:
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755)
        if where == "a link":
            (folder / "link").symlink_to(site)
            site = folder / "link"
        if where == "a file":  # a module beside others, and the package a link to elsewhere
            package.rename(folder / "elsewhere")
            package.symlink_to(folder / "elsewhere")
        code = f"import sys; sys.path.append({str(site)!r})\n" + FROM_A_FOLDER
        found = run_python(sys.executable, "-c", code, level)
        assert found.stdout == "PASS\n", found.stderr
    finally:
        shutil.rmtree(folder)


# --- many and crowded --------------------------------------------------------------------------

QUICK = (  # hostile programs that end by themselves or are ended at once
    "aborts", "always_equal", "answers_before_it_is_asked", "channel_over_output",
    "closes_everything", "decorated", "exception_name_lies", "exit_in_call", "exits_at_exit",
    "fork_bomb", "forged_replies", "hard_exit_in_call", "heap_walk", "kill_everything",
    "late_thread", "locks_its_folder", "memfd", "null_dereference", "orphan",
    "returns_itself", "sends_a_verdict", "spawns", "truncated_reply", "unix_socket",
    "write_outside", "writes_to_every_descriptor",
)  # fmt: skip
SLOW = ("interrupts", "late_writer", "sleeps", "slow_regex", "spins_at_import", "stops_itself")
ADD = "def add(a, b): return a + b"
WRONG = "def add(a, b): return a - b"


def resident(pids: list[int]) -> float:
    """MiB of memory that these processes hold, shared pages in full."""
    pages = [int(stat(pid)[21]) for pid in pids if stat(pid)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def zygotes() -> list[int]:
    names = {n: Path("/proc", str(n), "cmdline") for n in descendants(os.getpid())}
    return [
        n for n, path in names.items() if stat(n) and b"rrtf.sandbox.zygote" in path.read_bytes()
    ]


@pytest.mark.slow
def test_ten_thousand_programs_leave_nothing_and_memory_stays_flat(
    tmp_path, monkeypatch, add_problem
):
    levels()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bad = [hostile(name) for name in QUICK]
    kinds = [*bad, *[ADD, WRONG] * 100]
    programs = [f"{kinds[i % len(kinds)]}\n# {i}" for i in range(10_000)]
    responses = respond(*programs, task_id=add_problem.task_id)
    execute([add_problem], responses[: len(kinds)])
    gc.collect()
    files, others, memory = len(os.listdir("/proc/self/fd")), descendants(os.getpid()), []

    def watch(done: int, total: int) -> None:
        if done >= (len(memory) + 1) * total // 10:
            memory.append((resident([os.getpid()]), resident(zygotes())))

    found = execute([add_problem], responses, progress=watch)
    gc.collect()
    assert descendants(os.getpid()).items() <= others.items()
    assert not list(tmp_path.iterdir())
    # One left by each program would be thousands; threads of other tests may open a few.
    assert len(os.listdir("/proc/self/fd")) <= files + 16
    (caller, fenced), (caller_later, fenced_later) = memory[1], memory[-1]
    assert caller_later - caller < 24 and fenced_later - fenced < 24, memory  # MiB
    verdicts = [(e.outcome, e.reason, e.n_passed) for e in found]
    for i in range(len(kinds)):
        assert len(set(verdicts[i :: len(kinds)])) == 1, kinds[i]


@pytest.mark.slow
def test_four_fold_oversubscription_changes_no_verdict(add_problem):
    levels()
    programs = [hostile(name) for name in (*QUICK, *SLOW)]
    works = "def add(a, b):\n    for _ in range(2_000_000): pass\n    return a + b\n# {}"
    programs += [works.format(i) for i in range(12)]
    programs += [f"{source}\n# {i}" for i in range(40) for source in (ADD, WRONG)]
    responses = respond(*programs, task_id=add_problem.task_id)
    limits = {"cpu_seconds": 0.8, "wall_seconds": 2.0}  # of which a starved program has five
    cores = len(os.sched_getaffinity(0))
    quiet = execute([add_problem], responses, workers=cores, **limits)
    busy = [subprocess.Popen([sys.executable, "-c", "while 1: pass"]) for _ in range(cores)]
    try:
        crowded = execute([add_problem], responses, workers=4 * cores, **limits)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert crowded == quiet
    assert all(
        e.n_passed == 3
        for e in crowded
        if e.index >= len(QUICK) + len(SLOW) and programs[e.index].startswith((ADD, works[:20]))
    )


@pytest.fixture
def one_cpu():
    """This process and its children on one CPU; the others are left to whoever else is there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.slow
def test_a_program_that_gets_no_cpu_is_told_from_one_that_sleeps(add_problem, one_cpu):
    levels()
    computes = "def add(a, b):\n    while True: pass\n"
    sleeps = "import time\ndef add(a, b):\n    time.sleep(60)\n"
    limits = replace(LIMITS, cpu_seconds=20.0, wall_seconds=1.0)
    with executor.Bench(limits) as bench:

        def reasons(*programs: str) -> list[str]:
            responses = respond(*programs, task_id=add_problem.task_id)
            return [e.reason for e in bench.judge([add_problem], responses, 1)]

        assert reasons(ADD) == [""]
        # Sessions may share a CPU evenly (Linux's autogroups), whatever their priorities: twenty
        # of them leave a twenty-first.
        spin = [sys.executable, "-c", "while True: pass"]
        busy = [subprocess.Popen(spin, start_new_session=True) for _ in range(20)]
        try:
            assert reasons(computes, sleeps) == ["starved", "wall_time"]
        finally:
            for process in busy:
                process.kill()
                process.wait()


def test_neither_the_caller_nor_the_zygotes_load_torch():
    code = (
        "import sys, time\nstart = time.perf_counter()\nfrom rrtf.sandbox import executor\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "limits = executor.Limits(2.0, 6.0, 512, 'landlock+seccomp')\n"
        "programs = [('import sys\\ndef f(): return sorted(sys.modules)', 'f')]\n"
        "got = executor.call(programs, [()], limits=limits, workers=1)\n"
        "names = got[0][0].value\n"
        "assert not [n for n in names if n.split('.')[0] in ('rrtf', 'torch', 'numpy', 'site')]\n"
        "assert len(names) < 150, len(names)\n"
    )
    found = run_python(sys.executable, "-c", code)
    assert not found.returncode, found.stderr
