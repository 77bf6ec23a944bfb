"""Pages that need no network and no other file: the report of a run, the sheet of an image, the page of a benchmark.

`run`, `sheet` and `benchmark` know nothing of each other; `common` is what they share, and knows none of them.
"""
