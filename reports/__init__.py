"""Records of what was run, and the pages, comparisons and audits made from them."""
