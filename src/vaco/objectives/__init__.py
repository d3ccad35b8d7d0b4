"""The mathematics: pure functions on tensors, no input or output, no state."""
