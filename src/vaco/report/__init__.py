"""Statistics and figures: reads tables, imports no training code."""
