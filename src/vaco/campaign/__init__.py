"""What many runs are: tiers, their archives, cost, checks, and clusters. What one run is: `vaco.runs`."""
