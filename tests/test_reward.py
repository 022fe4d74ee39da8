"""Doors for other trainers: one verdict per answer, and no failure of the machine is a zero."""

import asyncio
import contextlib
import json
import math
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
from conftest import LIMITS
from test_interop import peer
from test_isolation import descendants

from rrtf import reward
from rrtf.reward import Rewards

ADD = {
    "task_id": "toy/add",
    "prompt": 'def add(a, b):\n    """Return the sum."""\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"
    "    assert candidate(2, 3) == 5\n",
}
TWICE = {
    "prompt": "",
    "entry_point": "twice",
    "test": "from solution import twice\ndef test_it():\n    assert twice(2) == 4\n",
}
RIGHT = "    return a + b\n"
WRONG = "    return 3\n"
CHAT = "Sure:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds."
KILLS_ITSELF = "    import os\n    os.kill(os.getpid(), 9)\n"


@pytest.fixture(scope="module")
def rewards():
    with Rewards(limits=LIMITS, workers=2) as found:
        yield found


def scores(verdicts) -> list[float | None]:
    return [verdict.score for verdict in verdicts]


def test_a_batch_of_rows_and_answers_gives_one_verdict_each_in_their_order(rewards):
    answers = [RIGHT, "def twice(x): return 2 * x", WRONG, CHAT, "    return (", RIGHT]
    rows = [ADD, TWICE, ADD, json.dumps(ADD), ADD, ADD]
    found = rewards(rows, answers)
    assert scores(found) == [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert [v.execution.reason for v in found] == ["", "", "wrong_value", "", "syntax", ""]
    assert found[2].execution.got == "3" and found[3].program == ADD["prompt"] + RIGHT


def test_rows_of_inputs_and_printed_outputs_are_judged_like_all_others(rewards):
    texts = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
    row = {"question": "Add what stands on the line.", "input_output": json.dumps(texts)}
    answers = ["So:\n```python\nprint(sum(map(int, input().split())))\n```\nThat is it.",
               "print(3)", "import os\nos.kill(os.getpid(), 9)"]  # fmt: skip
    found = rewards([row] * 3, answers)
    assert scores(found) == [1.0, 0.0, None] and found[1].execution.n_passed == 1


def test_partial_scores_are_shares_of_the_tests_and_only_of_programs_that_run():
    with Rewards(limits=LIMITS, workers=1, partial=True) as rewards:
        assert scores(rewards([ADD] * 3, [WRONG, RIGHT, "    return (\n"])) == [0.5, 1.0, 0.0]


def test_a_row_that_is_no_task_is_named_before_anything_runs(rewards):
    for row, told in (
        ("no JSON", "row 1: expected a task"),
        ({"prompt": "", "entry_point": "f"}, "row 1: no test"),
        (ADD | {"test": "# joint: these tests run in the candidate's own process, which can forge "
                "their verdict\nassert add(1, 2)"}, "row 1: its tests ask to run beside"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            rewards([ADD, row], [RIGHT, RIGHT])
    with pytest.raises(ValueError, match="2 rows but 1"):
        rewards([ADD, ADD], [RIGHT])


def test_what_is_not_the_answers_fault_has_no_score_and_says_why(rewards, monkeypatch):
    broken = ADD | {"task_id": "broken", "test": "assert add(1"}
    killed, tests = rewards([ADD, broken], [KILLS_ITSELF, RIGHT])
    assert scores([killed, tests]) == [None, None]
    assert (killed.failure_kind, killed.failure_reason) == ("killed", "signal_9")
    assert tests.failure_kind == "tests" and "do not compile" in tests.failure_reason

    def fail(*_, **__):
        raise RuntimeError("the sandbox failed 3 times")

    monkeypatch.setattr(rewards._bench, "judge", fail)
    (lost,) = rewards([ADD], [WRONG])
    assert (lost.score, lost.failure_kind, lost.execution) == (None, "sandbox", None)
    assert lost.failure_reason == "the sandbox failed 3 times"


@pytest.mark.parametrize("code", ["assert f() == 1", "if True:\n    assert f() == 1"])
def test_a_judge_worker_or_zygote_that_is_killed_costs_no_verdict(code):
    """While a program waits, each of the processes that judge it is killed in its turn."""
    row = {"prompt": "", "entry_point": "f", "test": code}
    program = "import time\ndef f():\n    time.sleep(0.5)\n    return 1"
    with Rewards(limits=LIMITS, workers=1) as rewards:
        assert scores(rewards([row], [program])) == [1.0]
        for number in range(4):
            (asked,) = rewards.submit([row], [f"{program}  # {number}"])
            time.sleep(0.3)
            family = sorted(descendants(os.getpid()))
            with contextlib.suppress(ProcessLookupError):
                os.kill(family[-1 - number % len(family)], signal.SIGKILL)
            assert asked.result(60).score == 1.0, number


def test_sandboxes_stay_warm_and_a_closed_one_starts_anew(rewards):
    rewards([ADD], [RIGHT])
    before = set(descendants(os.getpid()))
    assert scores(rewards([ADD, TWICE], [WRONG, "twice = 3"])) == [0.0, 0.0]
    lanes = {n for n in before if n in descendants(os.getpid())}
    assert len(lanes) >= 2
    with Rewards(limits=LIMITS, workers=1) as other:
        assert scores(other([ADD], [RIGHT])) == [1.0]
        other.close()
        assert scores(other([ADD], [RIGHT])) == [1.0]


def test_a_fork_of_the_caller_has_judges_of_its_own(rewards):
    assert scores(rewards([ADD], [RIGHT])) == [1.0]
    pid = os.fork()
    if not pid:
        code = 1
        with contextlib.suppress(BaseException):
            code = int(scores(rewards([ADD, ADD], [RIGHT, WRONG])) != [1.0, 0.0])
        os._exit(code)
    assert scores(rewards([ADD], [WRONG])) == [0.0]
    assert os.waitpid(pid, 0)[1] == 0


# --- doors -------------------------------------------------------------------------------------


def test_the_door_of_trl_takes_columns_or_whole_tasks_and_gives_numbers_or_none(rewards):
    prompts = [ADD["prompt"]] * 3
    columns = {name: [ADD[name]] * 3 for name in ("task_id", "entry_point", "test")}
    more = {"completion_ids": [[1], [2], [3]], "trainer_state": object(), "log_extra": print}
    found = rewards.trl(
        prompts=prompts, completions=[RIGHT, WRONG, KILLS_ITSELF], **columns, **more
    )
    assert found == [1.0, 0.0, None] and rewards.trl.__name__ == "trl"
    chat = [[{"role": "user", "content": "Add."}]]
    said = [[{"role": "assistant", "content": CHAT}]]
    assert rewards.trl(prompts=chat, completions=said, task=[json.dumps(ADD)]) == [1.0]


def test_pairs_are_best_and_worst_of_a_prompt_and_none_where_all_are_alike(rewards):
    other = ADD | {"prompt": 'def add(a, b):\n    """Add."""\n'}
    rows = [ADD] * 4 + [other] * 2
    answers = ["    return (", RIGHT, WRONG, KILLS_ITSELF, RIGHT, RIGHT]
    columns = {name: [row[name] for row in rows] for name in ("entry_point", "test")}
    (pair,) = rewards.pairs([row["prompt"] for row in rows], answers, **columns)
    assert pair == {"prompt": ADD["prompt"], "chosen": RIGHT, "rejected": "    return ("}


def test_the_door_of_verl_takes_its_four_arguments_and_gives_a_dictionary(rewards, monkeypatch):
    monkeypatch.setattr(reward, "usual", lambda pid: rewards)
    about = {"index": 3, "prompt": ADD["prompt"], "entry_point": "add"}
    found = reward.compute_score("toy", RIGHT, ADD["test"], about)
    assert (found["score"], found["mask_sample"], found["outcome"]) == (1.0, False, "PASS")
    assert reward.compute_score("toy", WRONG, json.dumps(ADD), None)["score"] == 0.0
    assert reward.compute_score("toy", CHAT, ["assert add(1, 2) == 3"])["score"] == 1.0
    lost = reward.compute_score(
        data_source="toy", solution_str=KILLS_ITSELF, ground_truth=ADD, extra_info={}
    )
    assert math.isnan(lost["score"]) and lost["mask_sample"]
    assert lost.keys() == found.keys()


def test_the_doors_of_verifiers_and_nemo_gym_are_asynchronous_and_mask_failures(rewards):
    said = [{"role": "assistant", "content": CHAT}, SimpleNamespace(role="tool", content="ok")]
    state: dict = {}

    async def ask():
        given = {"prompt": "", "task": "code", "state": state}
        right = await rewards.verifiers(completion=said, info=ADD, answer="", **given)
        wrong = await rewards.verifiers(completion=WRONG, answer=json.dumps(ADD), **given)
        assert (right, wrong, state) == (1.0, 0.0, {})
        return await rewards.verifiers(completion=KILLS_ITSELF, info=ADD, **given)

    assert math.isnan(asyncio.run(ask())) and "killed: signal_9" in str(state["error"])
    message = {"type": "message", "role": "assistant", "content": [{"text": CHAT}]}
    response = {"output": [{"type": "reasoning", "summary": []}, message]}
    found = asyncio.run(rewards.verify(ADD, response))
    assert found["reward"] == 1.0 and not found["mask_sample"] and not found["failure_kind"]
    lost = asyncio.run(rewards.verify(ADD, {"output": [message | {"content": KILLS_ITSELF}]}))
    assert lost["mask_sample"] and lost["failure_kind"] == "killed" and lost["failure_reason"]


_GRPO = """
import contextlib, json, sys
from types import SimpleNamespace
from collections import defaultdict
from accelerate import PartialState
from trl import GRPOTrainer
from rrtf.reward import Rewards
PartialState(cpu=True)
rows, answers = json.loads(sys.stdin.read())
with Rewards(workers=1) as rewards:
    self = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x), reward_funcs=[rewards.trl],
        reward_processing_classes=[None], reward_func_names=[rewards.trl.__name__],
        state=SimpleNamespace(global_step=0),
        environments=None, _pending_extra_logs=defaultdict(list), _pending_metrics={},
        _log_completion_extra=print, _log_metric=print, args=SimpleNamespace(report_to=[]),
    )
    import trl.trainer.grpo_trainer as module
    module.gather, module.profiling_context = lambda x: x, lambda *_: contextlib.nullcontext()
    ask = GRPOTrainer._calculate_rewards
    ask = getattr(ask, "__wrapped__", ask)
    prompts = [row["prompt"] for row in rows]
    found = ask(self, rows, prompts, answers, [[1]] * len(rows))
print(json.dumps([None if x != x else x for x in found[:, 0].tolist()]))
"""


@pytest.mark.slow
def test_trls_own_trainer_calls_the_door_and_leaves_out_what_it_gives_no_score():
    asked = json.dumps([[ADD] * 3, [RIGHT, WRONG, KILLS_ITSELF]])
    command = [peer("trl", "RRTF_TRL"), "-c", _GRPO]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=500)
    assert not done.returncode, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [1.0, 0.0, None]


# --- under load --------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_request_is_lost_doubled_or_scored_by_a_kill_under_64_callers():
    """`tests/benchmarks/bench_reward.py` does the same with as many requests as one likes."""
    from bench_reward import stress

    found = stress(requests=256, callers=64, workers=2, kill_every=16, seed=1)
    assert found["answered"] == 256 and found["lost"] == found["doubled"] == 0
    assert found["scored wrongly"] == 0 and found["kills"] > 5
