"""The search for a served model's sampling parameters, in parts; `training.workshop.tune` is the verb."""
