"""What a fine-tuned model is, next to the model that it came from.

Each module answers one question about a weight `W0` (d_out x d_in) and its change `delta_W`, and works alone on
two tensors:

| module | question |
|---|---|
| `pair` | which matrices changed? two folders, or a folder and an adapter, read one matrix at a time |
| `spectra` | what is the spectrum of the change, its effective rank, the rank that holds 90% of it? |
| `distance` | how near could LoRA, S2FT, cLA ... of a given size have come to it? |
| `intruders` | which singular vectors of the tuned weight are far from all pretrained ones? |
| `merge_error` | what does merging lose in 16 bits? |
| `capacity` | what does the norm bound allow the output to move, and does that say anything? |
| `on_text` | the same change as the user's own text sees it, and what the text shows was forgotten |
"""
