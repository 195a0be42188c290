"""Claims of the comparison of PEFT with full fine-tuning, read from a second-hand summary."""
