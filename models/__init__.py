"""The floor: taxonomy, masking, templates and windows; knows nothing of the daemon or of training."""
