"""`helpers.memory`: the closed form, the trace and the measurement against each other and the real allocator."""

import dataclasses
import inspect
import json
import random
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from memory_cases import BERT, CONFIGURATIONS, GPT2, LLAMA, QWEN2
from memory_truth import quiet, real_peak

from helpers import memory
from helpers.memory import estimate, measure, read_config, trace

SHAPE = {"per_device_train_batch_size": 4, "sequence_length": 128}


@pytest.fixture(autouse=True, scope="module")
def without_chatter():
    quiet()


# ---------------------------------------------------------------------------------------------------------------------
# What a model is
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # as published in papers and model cards
        ("gpt2", 124_439_808),
        ("gpt2-xl", 1_557_611_200),
        ("llama-7b", 6_738_415_616),
        ("llama-13b", 13_015_864_320),
        ("llama-2-70b", 68_976_648_192),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3.2-1b", 1_235_814_400),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-7b", 7_615_616_512),
        ("mistral-7b", 7_241_732_096),
    ],
)
def test_parameters_of_known_models(name, parameters):
    assert read_config(name).parameters("causal-lm") == parameters


def test_known_models_come_with_a_source():
    table = tomllib.loads((Path(memory.__file__).parent / "models.toml").read_text(encoding="utf-8"))
    names = [name for family in table["family"] for name in family["models"]]
    assert sorted(names) == sorted(memory.KNOWN_MODELS)
    assert all(re.search(r"arXiv|config\.json|model card", family["source"]) for family in table["family"])


DECODER_TASKS = ("causal-lm", "sequence-classification", "token-classification", "question-answering")
ENCODER_TASKS = ("masked-lm", "sequence-classification", "token-classification", "question-answering")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *[(name, task) for name in ("gpt2", "qwen2.5-0.5b") for task in DECODER_TASKS],
        *[
            (name, task)
            for name in ("bert-base-cased", "roberta-base", "distilbert-base-cased")
            for task in ENCODER_TASKS
        ],
    ],
)
def test_parameters_agree_with_transformers(name, task):
    import torch

    architecture = read_config(name)
    with torch.device("meta"):
        model = memory.build_model(name, task=task)
    assert architecture.parameters(task) == sum(p.numel() for p in model.parameters())
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    head = model.get_output_embeddings()
    width_and_labels = architecture.hidden_size + architecture.num_labels  # the biases of an encoder's head
    weights = [getattr(module, "weight", None) for module in model.modules()]
    weights = [weight for weight in weights if weight is not None and weight.ndim == 2]
    multiplied = {id(weight): weight.numel() for weight in weights}
    multiplied = sum(n for key, n in multiplied.items() if key not in tables or (head and key == id(head.weight)))
    if task == "sequence-classification":  # its head sees one row of each text, not every token
        multiplied -= architecture.parameter_groups(task)["head"] - (0 if architecture.is_decoder else width_and_labels)
    assert architecture.matmul_parameters(task) == multiplied


def test_config_can_be_a_name_a_directory_an_object_or_a_dict(tmp_path):
    from transformers import GPT2Config

    (tmp_path / "config.json").write_text(json.dumps(GPT2), encoding="utf-8")
    peaks = {estimate(config, **SHAPE).peak_bytes for config in (GPT2, tmp_path, str(tmp_path), GPT2Config(**GPT2))}
    assert len(peaks) == 1
    for name in ("openai-community/gpt2", "GPT2"):
        assert read_config(name).parameters() == read_config("gpt2").parameters()
    assert read_config("meta-llama/Llama-2-7b-hf").max_position_embeddings == 4096


# ---------------------------------------------------------------------------------------------------------------------
# Nonsense
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ("gpt2", {"per_device_train_batch_size": -1}, "per_device_train_batch_size must be a whole number"),
        ("gpt2", {"per_device_train_batch_size": 2.5}, "per_device_train_batch_size must be a whole number"),
        ("gpt2", {"sequence_length": 0}, "sequence_length must be a whole number"),
        ("gpt2", {"sequence_length": 1025}, "beyond gpt2's 1024 positions"),
        ("roberta-base", {"sequence_length": 514}, "beyond roberta-base's 512 positions"),
        ("gpt2", {"optim": "adamm"}, "unknown optim 'adamm'; choose from adamw_torch_fused"),
        ("gpt2", {"precision": "int3"}, "unknown precision"),
        ("gpt2", {"task": "masked-lm"}, "is a decoder"),
        ("bert-base-cased", {"task": "causal-lm"}, "is an encoder and does not generate"),
        ("gpt2", {"method": "lora", "lora_target_modules": ("q_proj",)}, "no linear layer 'q_proj'; choose from attn"),
        ("gpt2", {"method": "lora", "lora_rank": 0}, "lora_rank must be a whole number"),
        ("gpt2", {"attn_implementation": "flash_attention_2"}, "half precision"),
        ("gpt2", {"method": "qlora", "precision": "bf16", "num_gpus": 2, "sharding": "fsdp"}, "4-bit weights"),
        ("gpt2", {"sharding": "zero9"}, "unknown sharding"),
        ("gpt2", {"sharding": "zero3"}, "num_gpus of at least 2"),
        ("gpt2", {"num_gpus": True}, "num_gpus must be a whole number"),
        ("gpt2", {"sequence_length": "512"}, "sequence_length must be a whole number"),
        ("gpt2", {"padded": "no"}, "padded must be True or False"),
        ("gpt2", {"activation_checkpointing": 1}, "activation_checkpointing must be True or False"),
        ("gpt2", {"device": "tpu"}, "unknown device"),
        ("llama-7b", {"method": "lora", "lora_target_modules": "q_proj"}, "must be a list of names"),
        ("llama-7b", {"method": "lora", "lora_target_modules": []}, "lora_target_modules is empty"),
        (7, {}, "config must be a name"),
        (GPT2 | {"n_layer": "three"}, {}, "num_hidden_layers is 'three'"),
        (GPT2 | {"n_embd": 192.0}, {}, "hidden_size is 192.0"),
        (GPT2 | {"num_labels": 0}, {}, "num_labels is 0"),
        (GPT2 | {"n_head": 5}, {}, "5 attention heads do not divide the width of 192"),
        (LLAMA | {"num_key_value_heads": 4}, {}, "4 key/value heads do not divide 6 attention heads"),
        (GPT2 | {"n_layer": -2}, {}, "num_hidden_layers is -2"),
        ({"model_type": "gpt2", "n_embd": 64, "n_head": 2}, {}, "lacks vocab_size"),
        ({"model_type": "hal9000"}, {}, "transformers has no model_type 'hal9000'"),
        (
            {"model_type": "opt"},
            {"method": "qlora"},
            "no closed form for model_type 'opt'.*cannot follow 4-bit weights",
        ),
        ("gpt5", {}, "unknown model 'gpt5'; known: gpt2, "),
    ],
)
def test_nonsense_raises(config, change, message):
    with pytest.raises(ValueError, match=message):
        estimate(config, **(SHAPE | change))


def test_trace_of_a_model_in_fp32_is_not_called_pure_bf16():
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=500))
    with pytest.raises(ValueError, match="its weights are in fp32; for pure-bf16 load it with"):
        trace(model, precision="pure-bf16", **SHAPE)
    whole = trace(model, **SHAPE)
    assert trace(model.to(torch.bfloat16), precision="pure-bf16", **SHAPE).peak_bytes < whole.peak_bytes


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ("gpt2", {"per_device_train_batch_size": 0}, "per_device_train_batch_size must be a whole number"),
        ("gpt2", {"precision": "fp8"}, "unknown precision"),
        ("gpt2", {"optim": "adamm"}, "unknown optim"),
        ("gpt2", {"sequence_length": 1025}, "beyond gpt2's 1024 positions"),
        ("bert-base-cased", {"task": "causal-lm"}, "does not generate"),
        ("llama-7b", {"method": "qlora", "precision": "bf16"}, "cannot follow 4-bit weights"),
    ],
)
def test_trace_refuses_nonsense_too(config, change, message):
    with pytest.raises(ValueError, match=message):
        trace(config, **(SHAPE | change))


def test_estimate_and_trace_share_their_settings():
    assert list(inspect.signature(memory.estimate_evaluation).parameters)[1] == "rows"
    for function in (estimate, trace):
        _, *shown = inspect.signature(function).parameters.values()
        assert [parameter.name for parameter in shown] == [field.name for field in dataclasses.fields(memory.Settings)]
        assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in shown)
        with pytest.raises(TypeError, match="batch_size"):
            function("gpt2", batch_size=4, **SHAPE)
    with pytest.raises(ValueError, match="one device"):
        trace("gpt2", num_gpus=2, **SHAPE)


def test_directory_without_a_config(tmp_path):
    with pytest.raises(ValueError, match="no config"):
        estimate(tmp_path, **SHAPE)


# ---------------------------------------------------------------------------------------------------------------------
# The closed form
# ---------------------------------------------------------------------------------------------------------------------


def test_estimate_needs_nothing_heavy():
    """The standard library alone, so that a web page can run it."""
    program = (
        "import sys; from helpers.memory import estimate; "
        "estimate('llama-7b', per_device_train_batch_size=1, sequence_length=512); "
        "print(sorted({'torch', 'transformers', 'numpy', 'matplotlib', 'peft', 'huggingface_hub'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_llama_7b_in_fp32():
    """The table of the guides: 26.95 + 26.95 + 53.9 GB, and activations that are not there at the same time."""
    llama = {"config": "llama-7b", "per_device_train_batch_size": 1, "sequence_length": 1770}
    predicted = estimate(**llama)
    assert predicted.weights / 1e9 == pytest.approx(26.95, abs=0.01)
    assert predicted.gradients == predicted.weights
    assert predicted.optimizer_state == 2 * predicted.weights
    assert 18e9 < predicted.activations < 21e9
    assert predicted.peak_gb == pytest.approx(107.8, abs=0.1)
    assert estimate(**llama, optim="adamw_torch_foreach").peak_gb == pytest.approx(134.8, abs=0.1)
    summed = predicted.weights + predicted.gradients + predicted.optimizer_state + predicted.activations
    assert summed > 1.15 * predicted.peak_bytes
    base = estimate(**llama, method="qlora", precision="bf16")
    assert (base.weights - 4 * base.trainable_parameters) / 1e9 == pytest.approx(3.87, abs=0.01)


def test_parts_add_up_to_the_peak():
    predicted = estimate("gpt2", **SHAPE, precision="bf16", num_gpus=4, sharding="fsdp")
    assert sum(predicted.parts.values()) == predicted.peak_bytes
    assert predicted.peak_bytes == max(sum(parts.values()) for parts in predicted.instants.values())


def test_settings_move_the_peak_the_right_way():
    def peak(**change):
        return estimate("gpt2", **({"per_device_train_batch_size": 8, "sequence_length": 512} | change)).peak_bytes

    assert peak(per_device_train_batch_size=4) < peak() < peak(sequence_length=1024)
    assert peak(attn_implementation="eager") > peak() > peak(activation_checkpointing=True)
    assert peak(precision="bf16") > peak(precision="pure-bf16")
    assert peak(method="lora") < peak(optim="adamw_8bit") < peak()
    assert peak(num_gpus=4, sharding="fsdp") < peak(num_gpus=4, sharding="zero1") < peak(num_gpus=4)
    assert peak(num_gpus=8, sharding="fsdp") < peak(num_gpus=2, sharding="fsdp")


def test_estimate_against_traces_of_random_settings():
    """Shapes and settings that nobody chose: the closed form against the exact trace."""
    draw, errors = random.Random(7), []
    for _ in range(6):
        heads = draw.choice([2, 4, 6])
        width, layers = heads * draw.choice([16, 32]), draw.randint(1, 5)
        kind = draw.choice(["gpt2", "bert", "llama"])
        config = {"gpt2": GPT2 | {"n_embd": width, "n_head": heads, "n_layer": layers}}.get(
            kind,
            (BERT if kind == "bert" else LLAMA)
            | {
                "hidden_size": width,
                "num_attention_heads": heads,
                "num_hidden_layers": layers,
                "intermediate_size": 3 * width,
                "num_key_value_heads": heads // 2,
            },
        )
        settings = {
            "per_device_train_batch_size": draw.choice([1, 3, 8]),
            "sequence_length": draw.choice([24, 100, 256]),
            "precision": draw.choice(["fp32", "bf16"]),
            "attn_implementation": draw.choice(["eager", "sdpa"]),
            "activation_checkpointing": draw.random() < 0.3,
            "device": draw.choice(["cpu", "cuda"]),
            "optim": draw.choice(["adamw_torch_fused", "adamw_torch_foreach", "sgd"]),
        }
        errors.append(abs(estimate(config, **settings).peak_bytes / trace(config, **settings).peak_bytes - 1))
    assert statistics.median(errors) < 0.01
    assert max(errors) < 0.07


def test_autocast_keeps_its_copies_until_the_forward_pass_ends():
    """With checkpointing the graph keeps none of them; they were not counted, and Qwen2.5-1.5B was 4.9 % low."""
    deep = QWEN2 | {"num_hidden_layers": 4, "intermediate_size": 1400, "vocab_size": 6000}
    settings = {"precision": "bf16", "activation_checkpointing": True, "optim": "sgd"}
    predicted, traced = estimate(deep, **SHAPE, **settings), trace(deep, **SHAPE, **settings)
    assert predicted.peak_bytes == pytest.approx(traced.peak_bytes, rel=0.02)
    assert predicted.peak_instant == "loss" and traced.phases["forward"] == traced.peak_bytes
    assert predicted.parts["weights in half precision"] == pytest.approx(predicted.weights / 2, rel=0.02)


# ---------------------------------------------------------------------------------------------------------------------
# The trace and the measurement
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "gpt2, sdpa",
        "gpt2, bf16, 8-bit AdamW",
        "gpt2, autocast, small batch",
        "bert, autocast",
        "qwen2, bf16, Adafactor",
    ],
)
def test_trace_and_estimate_against_the_real_allocator(name):
    config, batch_size, length, settings = CONFIGURATIONS[name]
    shape = {"per_device_train_batch_size": batch_size, "sequence_length": length, "device": "cpu"}
    real = real_peak(config, batch_size, length, **settings)
    assert trace(config, **shape, **settings).peak_bytes == pytest.approx(real, rel=0.001)
    assert estimate(config, **shape, **settings).peak_bytes == pytest.approx(real, rel=0.02)


def test_measure_agrees_with_trace_on_a_model_object():
    model = memory.build_model(QWEN2)
    batch, optimizers = memory.build_batch(model, 4, 128), memory.build_optimizers(model, "adamw_torch_fused")
    first = measure(lambda: memory.training_step(model, batch, optimizers))
    second = measure(lambda: memory.training_step(model, batch, optimizers))
    traced = trace(model, **SHAPE, device="cpu")
    assert second.peak_bytes == pytest.approx(traced.peak_bytes, rel=0.001)
    assert first.peak_bytes < 0.95 * second.peak_bytes  # AdamW's state was not there yet
    assert sum(traced.parts.values()) == traced.peak_bytes
    assert traced.parts["weights"] == sum(p.numel() for p in model.parameters()) * 4 + 2 * 4 * 16  # rotary frequencies
    assert next(model.parameters()).device.type == "cpu"  # not fake: the model is untouched


def test_measure_counts_what_takes_part():
    import torch

    used, unused = torch.ones(1000), torch.ones(5000)

    def step():
        doubled = used * 2  # 4000 bytes beside the 4000 of `used`
        del doubled
        return used.sum().item()

    measured = measure(step)
    assert measured.result == 1000
    assert measured.peak_bytes == 8000
    assert measured.device == "cpu"
    assert unused.sum() == 5000


def test_a_tensor_from_before_counts_although_it_is_touched_late():
    import torch

    late = torch.ones(1000)
    assert measure(lambda: (torch.ones(2000).sum(), late.sum())).peak_bytes >= 12_000


def test_measure_on_the_cpu_of_a_machine_with_a_gpu(monkeypatch):
    """The reduced profile keeps to the CPU everywhere: nothing was ever allocated on the GPU."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    measured = measure(lambda: torch.ones(1000).sum())
    assert measured.device == "cpu" and measured.peak_bytes >= 4000


def test_measure_around_a_trainer(tmp_path):
    from transformers import Trainer, TrainingArguments

    model = memory.build_model(GPT2)
    arguments = TrainingArguments(
        tmp_path,
        per_device_train_batch_size=4,
        max_steps=2,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows = [{"input_ids": [1] * 128, "labels": [1] * 128}] * 8
    measured = measure(Trainer(model, arguments, train_dataset=rows).train)
    assert measured.result.global_step == 2
    assert measured.peak_bytes == pytest.approx(trace(GPT2, **SHAPE, device="cpu").peak_bytes, rel=0.005)


OPT = {
    "model_type": "opt",
    "hidden_size": 64,
    "ffn_dim": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 500,
    "word_embed_proj_dim": 64,
}


def test_an_architecture_without_a_closed_form_is_traced():
    predicted, traced = estimate(OPT, **SHAPE, device="cpu"), trace(OPT, **SHAPE, device="cpu")
    assert "no closed form for model_type 'opt'" in str(predicted) and "traced in" in str(predicted)
    assert predicted.peak_bytes == traced.peak_bytes > 12 * 4 * 128 * 500
    assert predicted.optimizer_state == pytest.approx(2 * predicted.gradients, rel=0.001)
    assert predicted.parameters == predicted.trainable_parameters == traced.parameters
    assert sum(predicted.parts.values()) == predicted.peak_bytes
