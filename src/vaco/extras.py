"""Which extra of the package brings which import, so that a missing one ends in a sentence that says how to mend it."""

from __future__ import annotations

from vaco.errors import UserError

EXTRAS = {
    **dict.fromkeys(("gymnasium", "imageio", "mujoco"), "control"),
    **dict.fromkeys(("accelerate", "gguf", "huggingface_hub", "tokenizers", "transformers"), "lm"),
    "peft": "lora",
    "bitsandbytes": "eight-bit",
    **dict.fromkeys(("datasets", "reasoning_gym"), "lm-data"),
    **dict.fromkeys(("arch", "matplotlib", "pandas", "rliable", "scipy"), "report"),
    **dict.fromkeys(("flint", "sympy"), "theory"),
    **dict.fromkeys(("pygments", "snakemake"), "workflow"),
    "typst": "book",
    **dict.fromkeys(("tensorboard", "wandb"), "log"),
    **dict.fromkeys(("imageio_ffmpeg", "pygame"), "video"),
    **dict.fromkeys(("onnx", "onnxscript"), "onnx"),
    "stable_baselines3": "sb3",
    **dict.fromkeys(("tensordict", "torchrl"), "torchrl"),
    "trl": "trl",
    "ray": "ray",
    # What runs of both kinds need: whichever was asked for.
    **dict.fromkeys(
        ("packaging", "pyarrow", "pydantic", "pydantic_core", "safetensors", "threadpoolctl", "tqdm", "yaml"), ""
    ),
}


def missing(error: ModuleNotFoundError, *, language: bool = False) -> UserError | None:
    """The sentence for an import that failed, or None if no extra would mend it.

    Args:
        error: what the import raised.
        language: whether a command about language models was asked for.
    """
    module = (error.name or "").split(".")[0]
    if module not in EXTRAS:
        return None
    extra = EXTRAS[module] or ("lm" if language else "control")
    return UserError(f'this needs {module}, which is not installed: pip install "vaco[{extra}]"')
