"""Verdicts as a reward: what TRL's GRPOTrainer takes as `reward_funcs` is `rewards.trl`."""
import json

from rrtf.reward import Rewards

if __name__ == "__main__":
    rows = [json.loads(line) for line in open("problems.jsonl")]
    answers = ["    return max(numbers)", "    return sum(map(text.lower().count, 'aeiou'))", "    return 0"]
    for verdict in Rewards(workers=2)(rows, answers):
        print(verdict.score, verdict.execution.outcome.name, verdict.execution.reason)
