"""`hauswart workshop`: the verbs that make, tune and choose a larger local language model."""

from __future__ import annotations

from training.verbs import group

VERBS = {
    "plan": "What fits this machine, what it costs, and what to take: local or an API.",
    "prepare": "Check, clean and split ChatML examples into train and val.",
    "train": "Fine-tune a language model on them with LoRA or QLoRA.",
    "export": "Merge, write a GGUF file and an Ollama Modelfile, and try them.",
    "evaluate": "Ask a served model test cases and report on its answers.",
    "serve-check": "Say what a chat-completions server can do and which parameters it heeds.",
    "tune": "Find the sampling parameters with which a served model answers best.",
    "export-feedback": "Write an application's ratings and edits as ChatML and preference pairs.",
}
MODULES = {"export-feedback": "feedback", "serve-check": "check"}  # where the module has another name

app = group(
    "workshop", "training.workshop", VERBS, MODULES, "Make, tune and choose a larger local language model."
)
