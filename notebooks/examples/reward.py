"""Verdicts as a reward: what TRL's GRPOTrainer takes as `reward_funcs` is `rewards.trl`."""

import json
from pathlib import Path

from rrtf.reward import Rewards

if __name__ == "__main__":
    rows = [json.loads(line) for line in Path("problems.jsonl").read_text().splitlines()]
    answers = [
        "    return max(numbers)",
        "    return len(text)",
        "    return list(zip(words, words[1:]))",
    ]
    for verdict in Rewards(workers=2)(rows, answers):
        print(verdict.score, verdict.execution.outcome.name, verdict.execution.reason)
