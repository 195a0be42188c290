"""The ways of evaluating a statement; `exact`, `degrees` and `words` are trusted and standard library only."""
