"""Fine-tuning methods and trials of the theory on real language models."""
