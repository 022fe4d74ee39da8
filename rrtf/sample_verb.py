"""The verb `sample` as the command line sees it; `sample_command` does the work."""

from rrtf import sample_options as asked
from rrtf.exits import exit_codes
from rrtf.options import ALL_CORES, Asked, Data, Draw, Joint, Longest, Packages, Problems, Since


def sample(
    problems: Problems,
    model: asked.Model,
    n: asked.Number = 1,
    temperature: asked.Temperatures = None,
    top_p: asked.TopP = 1.0,
    max_new_tokens: Longest = None,
    prompt_format: Asked = "starcoder",
    seed: Draw = asked.STAGE["seed"],
    out: asked.Out = None,
    data: Data = None,
    since: Since = None,
    joint: Joint = False,
    packages: Packages = "",
    engine: asked.Engine = "auto",
    workers: asked.Workers = ALL_CORES,
    cluster: asked.Cluster = "local",
) -> None:
    """Answer problems by a model: N samples a task at every temperature.

    With --out one line per answer: task_id, source (the model's name), index, text, program,
    n_tokens, finish_reason, temperature. The same command goes on after an interruption.
    """
    given = dict(locals())
    from rrtf import sample_command

    with exit_codes(interrupted=sample_command.how_to_go_on(out)):
        sample_command.sample_problems(**given)
