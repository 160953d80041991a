"""How faults come about on a host: each mechanism gives a cause's signs, its culprits and its victims.

A mechanism belongs to exactly one of train, validation and test, so that a model is measured on ways of
failing that it never saw.
"""
