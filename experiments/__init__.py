"""One script a figure: `python -m experiments.NAME --out DIR` makes it."""
