"""Advice: the reviewed catalogue, how it is filled from evidence, and the fact check that guards it."""
