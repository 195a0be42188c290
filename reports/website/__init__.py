"""The pages as a web site: what a browser adds to the Markdown (formulas, drawings, filters, sliders), all of it local."""
