"""The real server of GGUF files that other tests ask."""

from __future__ import annotations

from tests.fixtures.served import serve_gguf, smollm2
from training.endpoint import Endpoint, open_chat


def test_real_server_answers_and_heeds_seed_and_temperature():
    with serve_gguf(smollm2()) as url:
        chat = open_chat(Endpoint(url=url), "prompts")
        question = [{"role": "user", "content": "What is a server?"}]
        greedy = chat.ask(question, temperature=0, max_tokens=8)
        drawn = [chat.ask(question, temperature=2.0, seed=seed, max_tokens=8).text for seed in (1, 1, 2)]
    assert greedy.answer_tokens == 8
    assert drawn[0] == drawn[1] != drawn[2]
