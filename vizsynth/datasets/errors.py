"""The exception of every reader."""


class DataError(ValueError):
    """A data set that cannot be read; the message is one line that says what to do."""


AGAIN = "copy or download it again"
