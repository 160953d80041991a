"""What the planner reckons: memory, speed and costs, against what was measured here and by others."""

import math
import re
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.fixtures.planning import CARD, LLAMA2, PLAIN, named
from tests.fixtures.served import serve_gguf, smollm2
from training.memory import estimate_bytes
from training.workshop.planning import catalogue, costs, fitting, machine, wording
from training.workshop.planning.costs import Scenario
from training.workshop.planning.fitting import Effort
from training.workshop.planning.machine import GIB
from training.workshop.planning.verdict import make_plan


@pytest.fixture(scope="module")
def known():
    return catalogue.load()


# --- memory and speed ---------------------------------------------------------------------------------------


def test_seven_billion_parameters_at_four_bits_are_as_large_as_published(known):
    """The GGUF file of Mistral-7B at Q4_K_M has 4.37 GB."""
    model, bits = named(known.model, "Mistral"), named(known.quantization, "Q4_K_M")
    assert model.parameters * bits.bits / 8 == pytest.approx(4.37e9, rel=0.01)


@pytest.mark.parametrize(
    ("length", "measured_gb"), [(1024, 6), (2048, 7), (4096, 9), (8192, 12), (16384, 19), (32768, 32)]
)
def test_training_takes_what_others_measured(length, measured_gb):
    """LLaMA-Factory's table: Llama 2 7B, 4 bits, rank 8, batch 1, FlashAttention 2, on an A100."""
    bare = estimate_bytes(
        LLAMA2, four_bits=True, sixteen_bits=True, tokens=length, rank=8, checkpointing=True
    )
    whole = bare + fitting.GPU_RUNTIME_BYTES
    assert whole == pytest.approx(measured_gb * 1e9, rel=0.09)


def test_lora_over_sixteen_bits_takes_what_others_measured():
    """The same table: batch 4 of 1024 tokens, 18 GB."""
    bare = estimate_bytes(LLAMA2, four_bits=False, sixteen_bits=True, tokens=4096, rank=8, checkpointing=True)
    assert bare + fitting.GPU_RUNTIME_BYTES == pytest.approx(18e9, rel=0.12)


def test_estimate_is_what_a_real_server_takes(known):
    """SmolLM2-135M in llama.cpp: the peak of its memory, without what Python takes there."""
    model = named(known.model, "SmolLM2-135M")
    before = {one.pid for one in psutil.Process().children(recursive=True)}
    with serve_gguf(smollm2(), context=1024) as url:
        (server,) = [one for one in psutil.Process().children(recursive=True) if one.pid not in before]
        from training.endpoint import Endpoint, open_chat  # noqa: PLC0415 - beside its use

        open_chat(Endpoint(url), "prompts").ask([{"role": "user", "content": "disk " * 200}], max_tokens=8)
        status = Path(f"/proc/{server.pid}/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024
    bits = 8 * smollm2().stat().st_size / model.parameters
    expected = fitting.inference_bytes(model, bits, Effort(1024, 1), gpu=False)
    assert 0.8 < expected / peak < 1.25


def test_memory_grows_with_context_and_conversations(known):
    model = named(known.model, "Meta-Llama")
    one, long, many = (
        fitting.inference_bytes(model, 4.84, Effort(*effort), gpu=True)
        for effort in ((1024, 1), (8192, 1), (1024, 8))
    )
    assert long - one == pytest.approx(fitting.kv_bytes(model) * 7168)
    assert long == many
    assert fitting.kv_bytes(model) == 131072  # 128 KiB a token, as everybody counts it for Llama 3


def test_settings_are_given_up_in_the_order_of_the_reference(known):
    model = named(known.model, "Qwen2.5-7B")
    found = [fitting.training(model, CARD._replace(gpu_gib=size), 16) for size in (80.0, 24.0, 13.0, 6.0)]
    assert [(one.method, one.batch_size, one.accumulation, one.length) for one in found[:3]] == [
        ("qlora", 2, 4, 4096),
        ("qlora", 1, 8, 4096),
        ("qlora", 1, 8, 2048),
    ]
    assert found[3].method == ""
    assert fitting.training(named(known.model, "SmolLM2-135M"), PLAIN, 16).quantization == "none"


def test_measurement_of_this_machine_gives_speeds_of_machines(known, tmp_path):
    here = machine.measure(machine.read_machine(known, tmp_path))
    if here.gpu:
        pytest.skip("this machine has a card, whose speeds are listed")
    assert 0.3 < here.bandwidth_gb_s < 2000
    assert 0.5 < here.gflops < 100_000
    assert here.ram_gib == pytest.approx(psutil.virtual_memory().total / GIB)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("NVIDIA GeForce RTX 3090, 24576\nNVIDIA T400, 4096\n", ("NVIDIA GeForce RTX 3090", 24.0)),
        ("", ("", 0.0)),
        ("No devices were found\n", ("", 0.0)),
        ("Strange, card, [N/A]\n", ("", 0.0)),
    ],
)
def test_card_is_read_from_nvidia_smi(said, found, known):
    assert machine.find_gpu(lambda: said) == found
    assert known.accelerator("NVIDIA GeForce RTX 3090").bandwidth == 936.0
    assert known.accelerator("something new").name == "gpu"


def test_missing_nvidia_smi_is_no_card(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert machine.find_gpu() == ("", 0.0)


# --- costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hardware", [0.0, 2000.0])
def test_at_the_break_even_both_cost_the_same(known, hardware):
    scenario = Scenario(30e6, 10e6, hardware_cost=hardware)
    plan = make_plan(known, CARD, scenario)
    api = named(known.api, "GPT-4 Turbo")
    even = costs.break_even_tokens(plan.local.cost, costs.api(api, scenario, known.assumptions), scenario)
    share = even / 40e6
    there = scenario._replace(tokens_in=30e6 * share, tokens_out=10e6 * share)
    here = costs.local(plan.local.fit, None, CARD, there, known.assumptions)
    assert here.total(24) == pytest.approx(costs.api(api, there, known.assumptions).total(24))


def test_cheap_tokens_are_never_beaten_by_dear_electricity(known):
    scenario = Scenario(10e6, 10e6)
    given = msgspec.structs.replace(known.assumptions, electricity_per_kwh=1000.0)
    plan = make_plan(msgspec.structs.replace(known, assumptions=given), CARD, scenario)
    assert math.isinf(plan.break_even_tokens)
    assert "At no volume" in " ".join(wording.reasons(plan, "en"))


def test_price_of_tokens_is_what_the_list_says(known):
    cost = costs.api(named(known.api, "GPT-4 Turbo"), Scenario(1e6, 1e6), known.assumptions)
    assert cost.month == pytest.approx(40 + 0.5 * 60)


def test_expected_speed_is_what_one_core_was_measured_to_reach(known):
    """SmolLM2-135M in llama.cpp, a second of one core's time: 65 tokens written, 162 read."""
    core = PLAIN._replace(bandwidth_gb_s=30.0, gflops=93.0)
    model = named(known.model, "SmolLM2-135M")
    found = fitting.fit(model, named(known.quantization, "Q4_K_M"), core, Effort(1024, 1))
    assert found.answer_tokens_s == pytest.approx(65, rel=0.1)
    assert found.prompt_tokens_s == pytest.approx(162, rel=0.1)
