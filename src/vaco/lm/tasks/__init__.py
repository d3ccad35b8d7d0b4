"""The tasks, one module a kind; `vaco.lm.task` is their front door."""
