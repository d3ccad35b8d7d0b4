"""Adam on one flat vector (Kingma and Ba 2015, Algorithm 1), in place.

Not torch.optim.Adam, because constructing that loads PyTorch's compiler: 0.9 s and 90 MB for a run that never compiles
anything. `tests/control/test_adam.py` holds the two together.
"""

from __future__ import annotations

import numpy as np

from vaco.control.gaussian import Floats


class Adam:
    """First and second moments of the gradient, and the number of steps taken.

    Attributes:
        steps: gradient steps so far.
        mean: exponential mean of the gradient, float32 [P].
        square: exponential mean of its square, float32 [P].
    """

    def __init__(self, size: int, epsilon: float, beta1: float = 0.9, beta2: float = 0.999) -> None:
        """Start with zero moments.

        Args:
            size: P, number of parameters.
            epsilon: added to the root of the second moment.
            beta1: decay of the first moment.
            beta2: decay of the second moment.
        """
        self.steps = 0
        self.mean: Floats = np.zeros(size, np.float32)
        self.square: Floats = np.zeros(size, np.float32)
        self._scratch: Floats = np.zeros(size, np.float32)
        self.epsilon, self.beta1, self.beta2 = epsilon, beta1, beta2

    def step(self, parameters: Floats, gradient: Floats, learning_rate: float) -> None:
        """Move the parameters one step down the gradient.

        Args:
            parameters: [P], changed in place.
            gradient: [P].
            learning_rate: step size.
        """
        self.steps += 1
        scratch = self._scratch
        self.mean *= self.beta1
        np.multiply(gradient, 1.0 - self.beta1, out=scratch)
        self.mean += scratch
        self.square *= self.beta2
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1.0 - self.beta2
        self.square += scratch
        np.divide(self.square, 1.0 - self.beta2**self.steps, out=scratch)
        np.sqrt(scratch, out=scratch)
        scratch += self.epsilon
        np.divide(self.mean, scratch, out=scratch)
        scratch *= learning_rate / (1.0 - self.beta1**self.steps)
        parameters -= scratch
