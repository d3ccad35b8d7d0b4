"""Training with actors of their own, and again by the record of what they did.

An *engine* hands the learner segments: of processes beside it, or, by a recorded schedule, of actors within it. The
runs here are `vaco.control.train.Run` with another origin of data; learner, alignment and filters know nothing of it.
"""
