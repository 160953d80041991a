"""Telling the operator: what is worth a notice, in which words, and through which channels."""
