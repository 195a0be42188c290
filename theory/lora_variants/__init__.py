"""Claims of the paper on LoRA variants (cheap LoRA and its chains), one file a claim or a group of one closed form."""
