"""Which method fits a model, a sample of its task and a memory: a ranking from proven and measured facts alone."""
