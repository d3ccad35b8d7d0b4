"""Numbers and files of text, from tables alone."""
