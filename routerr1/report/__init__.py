"""The report: sections, plots, the trajectory browser."""
