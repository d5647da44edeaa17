"""What an error says, for messages of one line."""


def first_line(error: BaseException) -> str:
    """The first line of the error's message, or its type where there is none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
