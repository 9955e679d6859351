"""What lesson 09 says about LoRA and QLoRA, on the tiny GPT-2: start, merging, and the memory of a step."""

import copy
import os
import warnings

import pytest
import torch

from helpers.memory import build_batch, build_optimizers, estimate, measure, trace, training_step
from helpers.profiles import ROOT

os.environ["HF_HUB_OFFLINE"] = "1"
GPT2 = ROOT / "data" / "models" / "gpt2"
ALL_LINEAR = ("c_attn", "c_proj", "c_fc")
IDS = torch.arange(1, 65).view(2, 32)


def load_base(in_four_bits=False):
    """GPT-2 with a classification head, as lesson 09 loads it."""
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    options = {}
    if in_four_bits:
        pytest.importorskip("bitsandbytes")
        four_bits = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
        options = {"quantization_config": four_bits, "device_map": "cpu"}
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        GPT2, num_labels=6, pad_token_id=0, use_cache=False, dtype=torch.float32, **options
    )


def build(method, rank=8, targets=("c_attn",)):
    """The same with adapters, as lesson 09 puts them on."""
    import peft

    model = load_base(in_four_bits=method == "qlora")
    if method == "full":
        return model.train()
    if method == "qlora":
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=2 * rank,
        target_modules=targets if isinstance(targets, str) else list(targets),
        fan_in_fan_out=method == "lora",
    )
    return peft.get_peft_model(model, config).train()


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def with_trained_adapter(model):
    """Gives B numbers of the size that training gives them."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return model


def test_adapters_change_nothing_at_the_start():
    assert torch.equal(logits(build("lora")), logits(build("full")))


@pytest.mark.parametrize("targets", [("c_attn",), ALL_LINEAR])
def test_merged_answers_as_unmerged_and_the_base_comes_back(targets):
    base, model = logits(build("full")), with_trained_adapter(build("lora", targets=targets))
    adapted = logits(model)
    assert (adapted - base).abs().max() > 0.05
    with model.disable_adapter():
        assert torch.equal(logits(model), base)
    merged = copy.deepcopy(model).merge_and_unload()
    assert (logits(merged) - adapted).abs().max() < 1e-4
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_a_saved_adapter_is_small_and_gives_the_same_answers(tmp_path):
    import peft

    model = with_trained_adapter(build("lora"))
    adapted = logits(model)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").stat().st_size < 0.05 * (GPT2 / "model.safetensors").stat().st_size
    again = peft.PeftModel.from_pretrained(build("full"), tmp_path)
    assert torch.equal(logits(again), adapted)


@pytest.mark.parametrize("targets", [("c_attn",), ALL_LINEAR])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("padded", [False, True])
def test_memory_is_predicted_within_three_percent(method, targets, padded):
    model = build(method, 16, targets)
    batch, optimizers = build_batch(model, 8, 96, padded), build_optimizers(model, "adamw_torch_fused")

    def two_steps():
        for _ in range(2):
            training_step(model, batch, optimizers)

    predicted = estimate(
        model.config,
        per_device_train_batch_size=8,
        sequence_length=96,
        method=method,
        lora_rank=16,
        padded=padded,
        lora_target_modules=targets,
        task="sequence-classification",
        device="cpu",
    )
    assert predicted.trainable_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert predicted.peak_bytes == pytest.approx(measure(two_steps).peak_bytes, rel=0.03)


def test_pefts_defaults_are_those_that_the_lesson_names():
    import peft

    assert (peft.LoraConfig().r, peft.LoraConfig().lora_alpha) == (8, 8)
    base = torch.nn.Sequential(torch.nn.Linear(8, 8, dtype=torch.bfloat16))
    wrapped = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0"]))
    assert {p.dtype for p in wrapped.parameters() if p.requires_grad} == {torch.float32}


def test_all_linear_finds_the_layers_and_leaves_the_head_out():
    by_name, found = build("lora", targets=ALL_LINEAR), build("lora", targets="all-linear")
    trained = [{n for n, p in model.named_parameters() if p.requires_grad} for model in (by_name, found)]
    assert trained[0] == trained[1] and not any("score.lora" in name for name in trained[0])


def test_activations_stay_where_a_layer_has_an_adapter():
    """A reads the input that W's gradient would need; where neither is trained, it is not kept."""
    shape = {"per_device_train_batch_size": 8, "sequence_length": 96, "task": "sequence-classification"}
    some, every = (trace(build("lora", targets=targets), device="cpu", **shape) for targets in (["c_attn"], ALL_LINEAR))
    full = trace(build("full"), device="cpu", **shape)
    saved = 12 * 4 * sum(p.numel() for n, p in build("full").named_parameters() if "h." in n)  # gradients, AdamW
    assert some.peak_bytes < 0.85 * every.peak_bytes
    assert full.peak_bytes - every.peak_bytes < saved


def test_an_adapter_of_4_bit_weights_is_exact_only_on_these_unpacked(tmp_path):
    import peft

    pytest.importorskip("bitsandbytes")
    model = with_trained_adapter(build("qlora", targets=ALL_LINEAR))
    wanted = logits(model)
    model.save_pretrained(tmp_path)

    def off(onto):
        return (logits(peft.PeftModel.from_pretrained(onto, tmp_path).merge_and_unload()) - wanted).abs().max()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rounded, original = off(load_base(in_four_bits=True)), off(load_base())
        unpacked = off(load_base(in_four_bits=True).dequantize())
    assert unpacked < 1e-4 < 0.02 < min(rounded, original)
