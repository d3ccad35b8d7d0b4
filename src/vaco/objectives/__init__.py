"""The mathematics: pure functions on tensors, no input or output, no state."""

# Whoever imports a part of it finds every rule in the tables: these enter theirs, and need what the others define.
from vaco.objectives import augmented, zoo

__all__ = ["augmented", "zoo"]
