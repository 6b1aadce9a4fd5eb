"""Privacy: what an update gives away, measured."""
