"""The judgement of each tier as plain classes without I/O, so that a replay runs the same code."""
