"""The paper's mathematics, executable: finite processes, bounds, exact arithmetic, worst cases and symbolic proofs.

The bounds call the functions that train (`vaco.objectives`), with exact expectations through their sample weights, so
that what is checked here is what runs there. `theory.run` is the command line's `vaco theory`.
"""
