"""The nouns of the project: every stage takes lists of these and returns lists of these.

All are frozen and flat, so that a list of them is a JSONL file or a Parquet table. Field names
are those of HumanEval and of the paper; `store` maps `tests` and `reference` to HumanEval's
`test` and `canonical_solution` on disk.
"""

from dataclasses import dataclass, field
from enum import IntEnum


class Outcome(IntEnum):
    """The paper's four situations of an executed program (section 3.2.2); the order is the rank."""

    COMPILE_ERROR = 1
    RUNTIME_ERROR = 2
    FAILED_TESTS = 3
    PASS = 4


STDIN = "sys.stdin"  # the entry point of a program that is run as a whole


@dataclass(frozen=True, slots=True)
class Problem:
    """A programming task in HumanEval form.

    `prompt` is signature and docstring, `reference` the body that continues it, `tests` the
    source of a function `check(candidate)`. `source` names where the row came from; an evolved
    row carries its `parent_id`, the `operator` that made it and the evolution `depth` (0 = seed).
    `spec` is the composition of a nano problem (see `rrtf.nano`), empty for all others.
    """

    task_id: str
    prompt: str
    entry_point: str
    tests: str
    reference: str = ""
    source: str = ""
    parent_id: str = ""
    operator: str = ""
    depth: int = 0
    spec: str = ""


@dataclass(frozen=True, slots=True)
class Instruction:
    """A task in words with its answer, the form of Code Alpaca and of Evol-Instruct.

    `input` is what the task is about where the row keeps it apart; an evolved task has it in its
    text. The family: `seed_id` is the row it all began with (its own id for a seed), `parent_id`
    the row that `operator` made this one from, `depth` the round of evolution (0 = seed).
    `generator` is the model that wrote it, `prompt_version` the wording that model was asked in.
    """

    task_id: str
    instruction: str
    input: str = ""
    output: str = ""
    seed_id: str = ""
    parent_id: str = ""
    operator: str = ""
    depth: int = 0
    generator: str = ""
    prompt_version: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled answer: `text` as the model wrote it, `program` what will be executed.

    `index` counts the responses of one `source` to one task from 0; `finish_reason` is
    `stop` (end of text or a stop sequence) or `length`.
    """

    task_id: str
    source: str
    index: int
    text: str
    program: str
    n_tokens: int = 0
    finish_reason: str = "stop"
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Execution:
    """What the tests said of one response: `n_passed` of `n_tests` assertions held.

    `reason` refines the outcome (`syntax`, `cpu_time`, `early_exit`, an exception's name, ...);
    `isolation` is the level the program ran under (`namespaces`, `landlock+seccomp`, `process`,
    `none`), with `, joint` where its tests ran in its own process. Of the assertion that failed
    first: its number from 1 in the order they were reached, its line in the tests, the call, what
    was expected and what came, at most 400 characters each; 0 and '' where there is none. They
    say more of a verdict and are no part of it: two verdicts that differ in them only are equal.
    """

    task_id: str
    source: str
    index: int
    outcome: Outcome
    reason: str
    n_passed: int
    n_tests: int
    isolation: str
    failed_test: int = field(default=0, compare=False)
    failed_line: int = field(default=0, compare=False)
    called: str = field(default="", compare=False)
    expected: str = field(default="", compare=False)
    got: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class RankedGroup:
    """The distinct responses to one prompt, ready for a ranking objective.

    `responses` are completions (training targets), parallel to `sources`, `outcomes` and
    `scores`; `sft_index` points at the response that L_ft imitates.
    """

    task_id: str
    prompt: str
    responses: tuple[str, ...]
    sources: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    scores: tuple[float, ...]
    sft_index: int

    @property
    def best_index(self) -> int:
        """The best-scored response; of equal ones that of `sft_index`, then the first."""
        places = range(len(self.scores))
        return max(places, key=lambda k: (self.scores[k], k == self.sft_index, -k))


@dataclass(frozen=True, slots=True)
class Leak:
    """A training row that resembles a benchmark task, with the evidence a reader can check."""

    task_id: str
    benchmark: str
    benchmark_task_id: str
    detector: str
    score: float
    evidence: str


@dataclass(frozen=True, slots=True)
class TaskScore:
    """Of `n` samples of `model` on one task, `c` pass. `family` groups tasks that resemble."""

    model: str
    benchmark: str
    task_id: str
    n: int
    c: int
    seed: int = 0
    temperature: float = 0.0
    family: str = ""


@dataclass(frozen=True, slots=True)
class TrainStep:
    """One optimizer update: losses are means over the groups of the batch.

    `violated` is the fraction of scored pairs whose order the model gets wrong before the update.
    """

    run: str
    step: int
    loss: float
    rank_loss: float
    ft_loss: float
    violated: float
    learning_rate: float
    grad_norm: float
