"""x"""

from typing import Any


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The token ids of a prompt, with the special tokens that the tokenizer puts around a text.

    A chat template has written its first special token itself; it is not put there twice.
    """
    first = tokenizer.bos_token
    written = bool(first) and prompt.startswith(first)
    return tokenizer.encode(prompt, add_special_tokens=not written)
