"""How many wrong programs do the tests of the core notice? A sample of cosmic-ray's mutants.

    python tests/benchmarks/bench_mutants.py --cosmic-ray PROGRAM [--sample 80] [--root CHECKOUT]
        [MODULE=TESTS ...]

PROGRAM is `cosmic-ray` (8.7.0, in an environment of its own). Of each module's mutants, in the
order of operator and occurrence, a sample with seed 0 is run, one at a time, in a copy of CHECKOUT:
killed is one with which the named tests fail or do not end. TESTS are words for pytest with commas
between them, of which the slow tests are left out. What is left alive is printed as a difference;
many of these change nothing that anybody could see (`==` into `is`, a keyword's star).
"""

import argparse
import json
import random
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAIRS = (
    "rrtf/loss.py=tests/test_loss.py",
    "rrtf/rank.py=tests/test_rank.py",
    "rrtf/stats.py=tests/test_stats.py",
    "rrtf/step/batches.py=tests/test_step.py,-k,batch or sequence or every_target or dropped"
    " or too_long or imitated or contradicts or order_fills or each_method or rrhf",
    "rrtf/prompts.py=tests/test_prompts.py",
)
SECONDS = 300  # until a run of the tests counts as one that does not end
LEFT_OUT = (".git", ".venv*", "runs", "__pycache__", "reports", ".pytest_cache")


def sampled(session: Path, size: int) -> int:
    """Leaves a sample of a session's mutants; how many there were."""
    with sqlite3.connect(session) as base:
        query = "select job_id from mutation_specs order by operator_name, occurrence"
        every = [row[0] for row in base.execute(query)]
        kept = set(random.Random(0).sample(every, min(size, len(every))))
        for job in (job for job in every if job not in kept):
            for table in ("mutation_specs", "work_items"):
                base.execute(f"delete from {table} where job_id = ?", (job,))
    return len(every)


def mutants(tree: Path, tool: str, module: str, tests: Sequence[str], size: int) -> None:
    """Prints how many of a module's mutants the tests kill, and the others."""
    words = ["env", f"PYTHONPATH={tree}", "OMP_NUM_THREADS=1", sys.executable, "-m", "pytest",
             "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]  # fmt: skip
    subprocess.run(words, cwd=tree, check=True, capture_output=True)
    settings, session = tree / "mutants.toml", tree / "mutants.sqlite"
    settings.write_text(
        f"[cosmic-ray]\nmodule-path = {json.dumps(module)}\ntimeout = {SECONDS}.0\n"
        f"excluded-modules = []\ntest-command = {json.dumps(shlex.join(words))}\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
    )
    session.unlink(missing_ok=True)
    subprocess.run([tool, "init", settings, session], cwd=tree, check=True, capture_output=True)
    count = sampled(session, size)
    subprocess.run([tool, "exec", settings, session], cwd=tree, check=True, capture_output=True)
    with sqlite3.connect(session) as base:
        found = base.execute("select test_outcome, diff from work_results").fetchall()
    alive = [diff for outcome, diff in found if "KILLED" not in str(outcome).upper()]
    print(f"{module}: {len(found) - len(alive)} of {len(found)} killed ({count} in all)")
    for diff in alive:
        changed = [line for line in diff.splitlines() if line[:1] in "+-" and line[1:2] not in "+-"]
        print("    " + "\n    ".join(changed), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="*", default=PAIRS)
    parser.add_argument("--cosmic-ray", required=True)
    parser.add_argument("--sample", type=int, default=80)
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(given.root, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for module, _, tests in (pair.partition("=") for pair in given.pairs):
            mutants(tree, given.cosmic_ray, module, tests.split(","), given.sample)


if __name__ == "__main__":
    main()
