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

Others look at a run of the trainer, before, during or after its training, and leave it bit for bit as it was:

| module | question |
|---|---|
| `effective` | to which plain weights is the model in training equivalent? |
| `forgetting` | what became of news articles that it never saw? |
| `curvature` | how sharp is the loss there? |
| `gradients` | how many directions of the loss gradient stand out of its noise? |
| `landscape` | what does the loss look like on a plane through the weights of several methods? |
| `assumptions` | which constants does the theory assume, and what are they here? |
| `bounds` | what does every bound say about this model, beside the measured gap? |
"""
