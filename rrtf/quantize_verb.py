"""The verb `quantize` as the command line sees it; `quantize_command` does the work."""

from rrtf import quantize_options as asked
from rrtf.exits import exit_codes, how_to_go_on
from rrtf.options import ALL_CORES, Asked, Cpu, Data, Draw, Level, Longest, Memory, Workers


def quantize(
    model: asked.Model,
    variant: asked.Variants,
    problems: asked.Measured = None,
    calibration: asked.Calibration = None,
    out: asked.Folder = None,
    data: Data = None,
    n: asked.Number = asked.STAGE["n_samples"],
    temperature: asked.Temperature = asked.STAGE["temperature"],
    top_p: asked.Nucleus = asked.STAGE["top_p"],
    prompt_format: Asked = "starcoder",
    max_new_tokens: Longest = None,
    timeout: asked.Timeout = 3600.0,
    seed: Draw = asked.STAGE["seed"],
    level: Level = "landlock+seccomp",
    workers: Workers = ALL_CORES,
    cpu_seconds: Cpu = None,
    memory_mb: Memory = 512,
) -> None:
    """Make a model smaller and faster, and measure what that costs: Table 4, completed.

    Every variant is made in a process of its own, asked in another and timed in a third; a model
    whose answers are broken is not timed. What cannot be had is named with what can.
    """
    from rrtf import quantize_command
    from rrtf.quantize import table

    execution = {"level": level, "workers": workers, "cpu_seconds": cpu_seconds}
    with exit_codes(interrupted=how_to_go_on(out, "--out")):
        quantize_command.quantize_model(
            model,
            variant,
            problems=problems,
            calibration=calibration,
            out=out,
            data=data,
            prompt_format=prompt_format,
            max_new_tokens=max_new_tokens,
            sampled=table.Sampled(n, temperature, top_p),
            timeout=timeout,
            seed=seed,
            memory_mb=memory_mb,
            **execution,
        )
