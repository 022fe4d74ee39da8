"""x"""


class Message(str):
    """A prompt that is a user's message: the server puts it into its own chat template."""
