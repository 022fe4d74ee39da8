"""On-policy rounds: what the model answers after training, ranked against the same teacher.

The paper samples the student once, before training (section 3.2.1), so the student answers that
RRTF pushes down are soon not what the model writes any more. A further round asks the trained
model again, executes what it says, and ranks it against the teacher answers that are there
already. Nothing else changes: the same scores, filter and pairing as in the first round.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrtf import asking, config, execution, rank, sample
from rrtf.records import Execution, Outcome, Problem, RankedGroup, Response

Tell = Callable[[int, int], None]


def next_groups(
    problems: Sequence[Problem],
    teacher_responses: Sequence[Response],
    *,
    model: str | Path,
    number: int,
    shards: Path,
    sampling: Mapping[str, Any],
    limits: Mapping[str, Any],
    scores: Mapping[Outcome, float],
    tie_break: float,
    pairing: str = "one",
    teacher_filter: str = "drop_below",
    prompt_format: str = "starcoder",
    seed: int,
    progress: Callable[[str], Tell] | None = None,
) -> tuple[list[RankedGroup], list[RankedGroup], dict[str, int]]:
    """(groups, pairs, counts in, kept and left out by reason) of round `number`, from `model`.

    `problems` are those that the first round kept, `teacher_responses` its teacher answers, of
    one source; answers to other problems are left out and counted. The first round has number 1,
    so this is called with 2 or more: the number decides, with `seed`, what is drawn. `sampling`
    are options of `sample.sample_temperatures` (`temperatures`, `n_samples`, `top_p`,
    `max_new_tokens`, `engine`, `workers`), `limits` those of `execution.execute` (`level`,
    `cpu_seconds`, `wall_seconds`, `memory_mb`, `workers`). `progress` is given a name and returns
    the callback `(done, total)` for it, as `store.Stage.progress`.

    Finished shards lie in the folder `shards`, named by all they depend on, the model's weights
    included: all rounds may share it, and an interrupted round goes on where it was. Errors as
    `sample.sample_temperatures`, `execution.execute` and `rank.rank`; ValueError for a number
    below 2 or teacher answers of several sources.
    """
    teacher = _source(teacher_responses)
    how = {"number": number, "shards": shards, "sampling": sampling, "limits": limits}
    how |= {"prompt_format": prompt_format, "seed": seed, "progress": progress}
    ours, judged = answers(problems, model=model, **how)
    theirs, unasked = rank.answers_to(problems, teacher_responses)
    told = progress("executing") if progress else None
    verdicts = execution.execute(problems, theirs, shards=shards, progress=told, **limits)
    verdicts += judged
    seed = config.derive_seed(seed, "round", number)
    ask = asking.asker(model, prompt_format)
    read = {problem.task_id: ask(problem) for problem in problems}
    how = {"teacher": teacher, "scores": scores, "tie_break": tie_break, "prompts": read}
    how["prompt_format"] = prompt_format
    groups, left_out = rank.rank(problems, theirs + ours, verdicts, **how)
    pairs, dropped = rank.pairs(groups, pairing=pairing, teacher_filter=teacher_filter, seed=seed)
    counts = {"problems": len(problems), "responses": len(teacher_responses) + len(ours)}
    counts |= unasked | left_out | {"groups": len(groups), "pairs": len(pairs)} | dropped
    return groups, pairs, counts


def answers(
    problems: Sequence[Problem],
    *,
    model: str | Path,
    number: int,
    shards: Path,
    sampling: Mapping[str, Any],
    limits: Mapping[str, Any],
    prompt_format: str = "starcoder",
    seed: int,
    progress: Callable[[str], Tell] | None = None,
) -> tuple[list[Response], list[Execution]]:
    """What `model` answers in round `number`, and the verdicts, in the same order.

    Arguments and errors as `next_groups`.
    """
    if number < 2:
        raise ValueError(
            f"round {number}: expected 2 or more; the first is sampled before training"
        )
    seed = config.derive_seed(seed, "round", number)
    draw = {"source": f"round-{number}", "prompt_format": prompt_format, "seed": seed} | sampling
    told = progress("sampling") if progress else None
    found = sample.sample_temperatures(problems, model=model, shards=shards, progress=told, **draw)
    told = progress("executing") if progress else None
    return found, execution.execute(problems, found, shards=shards, progress=told, **limits)


def _source(teacher_responses: Sequence[Response]) -> str:
    """The one source of the teacher's answers."""
    sources = sorted({response.source for response in teacher_responses})
    if len(sources) != 1:
        raise ValueError(f"teacher answers of {sources}: expected those of one source")
    return sources[0]
