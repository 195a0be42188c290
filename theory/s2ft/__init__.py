"""Claims of the S2FT paper (structured sparse fine-tuning), one file a claim or a group of one closed form."""
