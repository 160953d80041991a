"""`hauswart academy`: the verbs that make a specialist of documents and ask it."""

from __future__ import annotations

from training.verbs import group

VERBS = {
    "train": "Read documents, distil them into questions and answers, train a specialist on these.",
    "query": "Ask a specialist; it cites document and page, or says that it is not in the documents.",
    "list": "The specialists and their documents.",
    "show": "One specialist: its documents, passages, data and figures.",
    "forget": "Remove a document or a whole specialist.",
    "report": "Measure a specialist beside its base, as a table and an HTML page.",
    "export": "Write a specialist as adapter, merged model or GGUF with a Modelfile.",
}
MODULES = {"list": "listing"}  # where the module has another name than the verb

app = group("academy", "training.academy", VERBS, MODULES, "Make a specialist of documents, and ask it.")
