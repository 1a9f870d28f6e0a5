"""LoRA on S1 equals the released system's: names, what is trained, logits, optimizer steps and merged weights."""

import functools

import pytest
import torch

from fish_speech.models import DualAR, DualARConfig, LoraConfig, install_lora, merge_lora
from fish_speech.models.lora import is_lora_name
from fish_speech.models.shapes import shapes_only
from fish_speech.training.losses import dual_ar_loss
from fish_speech.training.module import parameter_groups
from fish_speech.training.schedule import constant_with_warmup

TOLERANCE = {"rtol": 0, "atol": 1e-4}  # the golden README's for logits of small models
CASES = pytest.mark.parametrize("case", ["lora_all", "lora_fast"])


@pytest.fixture()
def answers(s1_golden):
    return lambda case: (s1_golden("manifest.json")["models"][case], s1_golden(f"{case}.npz"))


@pytest.fixture()
def batch(s1_golden):
    arrays = s1_golden("batch.npz")
    return tuple(torch.from_numpy(arrays[name]) for name in ("inputs", "labels", "attention_masks"))


@pytest.fixture()
def adapted(s1_golden_dual_ar, answers):
    """Model A with a case's adapters, as upstream trains it: without scaling at audio positions."""
    return lambda case: s1_golden_dual_ar("A", lora=answers(case)[0]["config"], scale_codebook_embeddings=False)


@CASES
def test_names_shapes_and_trainable_weights_equal_the_golden_ones(answers, adapted, case):
    model, (manifest, _) = adapted(case), answers(case)
    assert {name: list(p.shape) for name, p in model.named_parameters()} == manifest["parameters"]
    assert [name for name, p in model.named_parameters() if p.requires_grad] == manifest["trainable"]


@CASES
def test_logits_before_and_after_merging_equal_the_golden_ones(answers, adapted, batch, case):
    model, (_, arrays) = adapted(case).train(), answers(case)
    inputs, labels, mask = batch
    for state in ("train", "merged"):
        with torch.no_grad():
            out = model(inputs, mask, labels)
        for name, logits in (("token", out.token_logits[:, -6:]), ("codebook", out.codebook_logits[-6:])):
            torch.testing.assert_close(logits, torch.from_numpy(arrays[f"{state}_{name}_logits"]), **TOLERANCE)
        merge_lora(model.eval())


@CASES
def test_merged_weights_equal_the_golden_ones(answers, adapted, case):
    model, (manifest, arrays) = adapted(case), answers(case)
    merge_lora(model)
    weights = model.state_dict()
    assert list(weights) == manifest["merged_keys"]
    for name, norm in manifest["merged_l2"].items():
        assert weights[name].norm().item() == pytest.approx(norm, rel=1e-5), name
    expected = torch.from_numpy(arrays["merged_wqkv_0"])
    torch.testing.assert_close(weights["layers.0.attention.wqkv.weight"], expected, rtol=1e-5, atol=1e-5)
    expected = torch.from_numpy(arrays["merged_fast_embeddings"])
    torch.testing.assert_close(weights["fast_embeddings.weight"][: len(expected)], expected, rtol=1e-5, atol=1e-5)


@CASES
def test_gradients_and_optimizer_steps_equal_the_golden_ones(answers, adapted, batch, case):
    model, (manifest, _) = adapted(case).train(), answers(case)
    decayed, plain = parameter_groups(torch.nn.ModuleDict({"model": model}))
    groups = [{**decayed, "weight_decay": 0.1}, {**plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-3, betas=(0.9, 0.95), eps=1e-5)
    factor = functools.partial(constant_with_warmup, num_warmup_steps=2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for row in manifest["steps"]:
        parts = dual_ar_loss(model, *batch)
        for name in ("loss", "base_loss", "semantic_loss", "top_5_accuracy"):
            assert getattr(parts, name).item() == pytest.approx(row[name], abs=1e-3 if row["lr"] else 1e-4), name
        assert optimizer.param_groups[0]["lr"] == pytest.approx(row["lr"])
        optimizer.zero_grad()
        parts.loss.backward()
        if row["step"] == 0:
            norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
            assert norms == pytest.approx(manifest["first_step_grad_norms"], rel=1e-3)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert norm.item() == pytest.approx(row["grad_norm"], rel=1e-3)
        optimizer.step()
        schedule.step()


def test_the_full_model_gets_as_many_adapters_as_the_released_one(s1_golden):
    config = s1_golden("full.json")["llama"]["config"]
    with shapes_only():
        model = DualAR(DualARConfig.from_mapping(config), 151658)
    install_lora(model, LoraConfig())
    adapters = [p for name, p in model.named_parameters() if is_lora_name(name)]
    assert (len(adapters), sum(p.numel() for p in adapters)) == (330, 8_071_168)  # the reference, section 6.1
