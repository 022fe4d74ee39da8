"""Runs a program on a Ray cluster of its own, and sees that nothing of either is left."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent

# `node` are the options of a node of one CPU, `cluster` has one; lost nodes are noticed soon.
START = """
import os
from ray.cluster_utils import Cluster

quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500,
         "health_check_timeout_ms": 500, "health_check_failure_threshold": 4}
node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 << 20}
head = node | {"include_dashboard": False, "_system_config": quick}
cluster = Cluster(initialize_head=True, head_node_args=head)
os.environ["RAY_ADDRESS"] = cluster.address
"""


def run(script: str) -> str:
    """The last line that `script` prints, after `START`; it ends with `cluster.shutdown()`."""
    pytest.importorskip("ray")
    with tempfile.TemporaryDirectory(prefix="rrtf-") as folder:  # short: Ray puts sockets there
        environment = os.environ | {
            "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
            "HOME": folder,
            "TMPDIR": folder,
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback address only
            "RAY_raylet_start_wait_time_s": "90",  # where others keep the machine busy
        }
        environment.pop("RAY_ADDRESS", None)
        try:
            done = subprocess.run(
                [sys.executable, "-c", START + script],
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert not done.returncode, done.stderr[-3000:]
            end = time.monotonic() + 20
            while (left := with_environment(folder)) and time.monotonic() < end:
                time.sleep(0.1)
            assert not left
            assert not list(Path(folder).glob("rrtf-scratch-*"))
        finally:
            for pid in with_environment(folder):
                os.kill(pid, signal.SIGKILL)
    return done.stdout.splitlines()[-1]


def with_environment(text: str) -> list[int]:
    """Living processes that have `text` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
