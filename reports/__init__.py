"""Records and the Markdown pages that are generated from them."""
