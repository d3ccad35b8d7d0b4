"""The data of Figures 1 and 2: small experiments with the very functions that train, written as JSON.

`vaco.report` reads tables and imports no training code, so what these two figures show is computed here:

* `python -m vaco.demonstrations.measure`: ages in real asynchronous training; not reproducible, so tracked;
* `python -m vaco.demonstrations.asynchrony`: ages under `vaco.lag.PolicyBuffer`, and a discrete-event simulation, first
  of the systems that were measured, then of larger ones;
* `python -m vaco.demonstrations.method`: what the filters keep and what the alignments estimate on small problems.
"""
