"""The base of all errors that a user can put right."""


class UserError(ValueError):
    """Bad input or a missing preparation; the message is one line: name, condition, value, remedy."""
