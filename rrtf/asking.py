"""How a model is asked: its prompt format, and for a chat model the template it came with.

Sampling, ranking and quantisation ask here, so that a model is trained on the very text that it
is sampled with.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from rrtf import engines, prompts
from rrtf.engines import message
from rrtf.records import Problem

Asker = Callable[[Problem], str]


def asker(model: str | Path, prompt_format: str, *, engine: str = "auto") -> Asker:
    """The function from a problem to the text that `model` is given in `engine`.

    `prompt_format` is one of `prompts.FORMATS`. Only `chat` looks at the model: ValueError where
    its tokenizer brings no template, FileNotFoundError where there is no such model. A remote
    engine gets the message itself, and its server puts it into the template.
    """
    template = None
    if prompt_format == "chat":
        is_remote = engines.remote(engine)
        template = message.Message if is_remote else _template(engines.model_folder(model))
    return partial(prompts.format_prompt, style=prompt_format, template=template)


@cache
def _template(folder: Path) -> Callable[[str], str]:
    return engines.chat_template(folder)
