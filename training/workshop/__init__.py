"""The workshop: larger local language models, fine-tuned, exported, tuned, chosen."""
