"""What wants a GPU, as one command: parts of minutes, the most telling first, each resumable.

Nothing here or below imports gguf, python-flint or z3: the command runs with the Python that is there.
"""
