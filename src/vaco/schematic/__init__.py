"""The data of Figures 1 and 2: small experiments with the very functions that train, written as JSON.

`vaco.report` reads tables and imports no training code, so what its schematic figures show is computed here:

* `python -m vaco.schematic.measure`: ages in a really asynchronous system of processes; not reproducible, so tracked;
* `python -m vaco.schematic.asynchrony`: ages under `vaco.lag.PolicyBuffer`, and a discrete-event simulation of the
  measured system;
* `python -m vaco.schematic.method`: what the filters keep and what the alignments estimate on small problems.
"""
