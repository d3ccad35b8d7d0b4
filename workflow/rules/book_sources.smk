"""What the book is made of, as a hash: a parameter of its rule, since inputs would be made, and trained, first."""

import hashlib

# All that a page can show: its own sources, generated figures, tables and numbers, and the code that it quotes.
BOOK_READS = [
    *("paper/book", "paper/figures", "paper/tables", "paper/numbers.json", "config"),
    *(
        "results/theory",
        "results/schematic",
        "benchmarks/results",
        "src/vaco",
        "theory",
    ),
    *("results/desk/tables", "results/lm_desk/tables"),
]


def book_hash(wildcards):
    """Sixteen hexadecimal digits of the sha256 over every file that the book reads and no build has made."""
    digest = hashlib.sha256()
    for place in map(Path, BOOK_READS):
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and not {"_build", "__pycache__"} & set(path.parts):
                digest.update(f"{path}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
