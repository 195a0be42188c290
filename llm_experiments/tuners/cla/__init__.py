"""Cheap LoRA (cLA) and its chained forms as a peft tuner."""
