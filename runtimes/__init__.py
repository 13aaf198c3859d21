"""Open the graphs of a pack in a runtime; none of these modules loads torch."""
