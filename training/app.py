"""`hauswart train`: the verbs that make, shrink, prove and pack the control models."""

from __future__ import annotations

from training.verbs import group

# In the order of the work; help lists them so.
VERBS = {
    "dataset": "Make a data set: rows with labels, split by group, as Parquet.",
    "finetune": "Train a model of any tier, from a shape, a folder or a named base.",
    "prune": "Cut a model: single weights, layers, width, vocabulary; then distil.",
    "quantize": "Make a model's numbers smaller: int8, for large bases 8 and 4 bit.",
    "wording": "Weigh words by judged lines, for alerts; or cross-validate that.",
    "reading": "Learn what unknown lines are about from labelled messages; or cross-validate that.",
    "calibrate": "Make a classifier's probabilities honest, and choose its decisions.",
    "evaluate": "Score a bundle, or the path without one, on a task's data.",
    "search": "Look for the best trade of quality against milliseconds and bytes.",
    "export": "Write a model as ONNX, safetensors or .pth.",
    "bundle": "Pack a model so that the daemon can load it.",
    "report": "Write what a run did as one self-contained HTML page.",
    "pipeline": "Run a recipe: everything from the data to the bundle.",
    "export-feedback": "Write the operator's verdicts as ChatML and preference pairs.",
}
MODULES = {"export-feedback": "feedback"}  # where the module has another name than the verb

app = group("train", "training", VERBS, MODULES, "Make, shrink, prove and pack the control models.")
