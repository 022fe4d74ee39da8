"""The verb `evolve` as the command line sees it; `evolve_command` does the work."""

from rrtf import evolve_options as asked
from rrtf.exits import exit_codes
from rrtf.options import ALL_CORES, Cpu, Level, Memory, Out, Rename, Strength, Workers


def evolve(
    seeds: asked.Seeds,
    generator: asked.Teller = "nano",
    model: asked.Model = "",
    rounds: asked.Rounds = 1,
    out: Out = None,
    dropped: asked.DroppedTo = None,
    rename: Rename = None,
    weights: asked.Weights = asked.WEIGHTS,
    after_failure: asked.AfterFailure = "retry",
    clean: asked.Clean = True,
    similarity: asked.Similarity = 0.8,
    seed: asked.EvolveSeed = asked.STAGE["seed"],
    replies: asked.Replies = None,
    concurrency: asked.Concurrency = 8,
    attempts: asked.Attempts = 6,
    timeout: asked.Timeout = 120.0,
    rate: asked.Rate = 0,
    spend: asked.Spend = 0,
    api_key_env: asked.KeyName = "OPENAI_API_KEY",
    temperature: asked.Temperature = 1.0,
    top_p: asked.Nucleus = 0.95,
    max_tokens: asked.MaxTokens = 1024,
    tests: asked.Tests = False,
    answers: asked.Answers = 5,
    inputs: asked.Inputs = 10,
    agreement: asked.Agreement = 0.6,
    min_strength: Strength = None,
    level: Level = "landlock+seccomp",
    workers: Workers = ALL_CORES,
    cpu_seconds: Cpu = None,
    memory_mb: Memory = 512,
) -> None:
    """Make harder tasks of tasks (Evol-Instruct): by a model at any endpoint, or without one.

    Writes the seeds and what became of them that pass all rules, each with its family: seed_id,
    parent_id, operator, depth, generator, prompt_version. With --tests they are problems in
    HumanEval form. The same command goes on from the saved replies.
    """
    given = dict(locals())
    from rrtf import evolve_command

    kept = f"the same command goes on from {evolve_command.replies_folder(replies, out)}"
    with exit_codes(interrupted=f"interrupted; {kept}" if generator != "nano" else "interrupted"):
        if generator == "nano":
            evolve_command.evolve_nano(
                seeds, rounds=rounds, weights=weights, seed=seed, out=out, workers=workers
            )
        else:
            evolve_command.evolve_asking(**given)
