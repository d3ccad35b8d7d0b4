"""One module a figure, from tables alone, and the look that all share."""
