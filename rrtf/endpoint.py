"""What a language model is asked through an endpoint, and what it replies."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: messages as (role, content), and how the reply is drawn."""

    messages: tuple[tuple[str, str], ...]
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 1024
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply; `error` says why no text came after all retries, empty for a good reply."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked; the key itself is never stored, logged or hashed."""

    base_url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
