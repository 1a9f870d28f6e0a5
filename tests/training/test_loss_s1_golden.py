"""Loss, gradients and optimizer steps of OpenAudio S1 equal the released system's, which did not scale frames."""

import functools

import pytest
import torch
import torch.nn.functional as F

from fish_speech.models import LoraConfig, install_lora
from fish_speech.training.losses import IGNORED, dual_ar_loss, dual_ar_sums, label_counts
from fish_speech.training.module import TextToSemantic, parameter_groups
from fish_speech.training.schedule import constant_with_warmup
from fish_speech.training.self_checks import check_fresh_adapters, shuffled_frames

MODELS = ["A", "B"]


@pytest.fixture()
def batch(s1_golden):
    """inputs, labels (2, 5, 60) and the mask of padding (2, 60)."""
    arrays = s1_golden("batch.npz")
    return tuple(torch.from_numpy(arrays[name]) for name in ("inputs", "labels", "attention_masks"))


@pytest.fixture()
def short_batch(s1_golden):
    """Three samples cut before their first frame: no label at all."""
    arrays = s1_golden("batch.npz")
    return tuple(torch.from_numpy(arrays[f"short_{name}"]) for name in ("inputs", "labels", "attention_masks"))


@pytest.fixture()
def unscaled(s1_golden_dual_ar):
    """A golden model in training, as the released training path computes it."""
    return lambda name: s1_golden_dual_ar(name, scale_codebook_embeddings=False).train()


def facts(s1_golden, name):
    return s1_golden("manifest.json")["models"][f"llama_{name}"]


def assert_losses(parts, answer, tolerance=1e-4):
    for name in ("loss", "base_loss", "semantic_loss", "top_5_accuracy"):
        assert getattr(parts, name).item() == pytest.approx(answer[name], abs=tolerance), name


@pytest.mark.parametrize("name", MODELS)
def test_loss_equals_the_golden_one(s1_golden, unscaled, batch, name):
    assert_losses(dual_ar_loss(unscaled(name), *batch), facts(s1_golden, name)["loss_train_mode"])


def test_gradients_equal_the_golden_ones(s1_golden, unscaled, batch):
    model, answer = unscaled("A"), facts(s1_golden, "A")
    dual_ar_loss(model, *batch).loss.backward()
    norms = {key: p.grad.norm().item() for key, p in model.named_parameters()}
    expected = answer["train_full"]["first_step_grad_norms"]
    assert list(norms) == list(expected)
    for key, norm in expected.items():
        assert norms[key] == pytest.approx(norm, rel=1e-3), key


def test_optimizer_steps_equal_the_golden_ones(s1_golden, unscaled, batch):
    model, answer = unscaled("A"), facts(s1_golden, "A")["train_full"]
    module = TextToSemantic(
        model,
        functools.partial(torch.optim.AdamW, lr=5e-3, weight_decay=0.1, betas=(0.9, 0.95), eps=1e-5),
        functools.partial(
            torch.optim.lr_scheduler.LambdaLR, lr_lambda=functools.partial(constant_with_warmup, num_warmup_steps=2)
        ),
    )
    names = {id(p): key.removeprefix("model.") for key, p in module.named_parameters()}
    groups = [[names[id(p)] for p in group["params"]] for group in parameter_groups(module)]
    assert groups == [answer["decay_group"], answer["no_decay_group"]]
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    for row in answer["steps"]:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(row["lr"])
        parts = dual_ar_loss(model, *batch)
        assert_losses(parts, row, 1e-3)
        optimizer.zero_grad()
        parts.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert norm.item() == pytest.approx(row["grad_norm"], rel=1e-3), row["step"]
        optimizer.step()
        schedule.step()
    weights = dict(model.named_parameters())
    for key, norm in answer["final_param_l2"].items():
        assert weights[key].norm().item() == pytest.approx(norm, rel=1e-3), key


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scaled", [False, True])
def test_loss_equals_that_of_the_whole_padded_batch(s1_golden_dual_ar, batch, name, scaled):
    model, (inputs, labels, mask) = s1_golden_dual_ar(name, scale_codebook_embeddings=scaled), batch
    with torch.no_grad():
        out = model(inputs, mask, labels)
        parts = dual_ar_loss(model, inputs, labels, mask)
    base = F.cross_entropy(out.token_logits.flatten(0, 1), labels[:, 0].flatten(), ignore_index=IGNORED)
    is_frame = (labels[:, 0] >= 335) & (labels[:, 0] <= 1434)
    codes = labels[:, 1:].transpose(1, 2)[is_frame]  # (frames, codebooks)
    semantic = F.cross_entropy(out.codebook_logits.flatten(0, 1), codes.flatten())
    torch.testing.assert_close(parts.base_loss, base, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.semantic_loss, semantic, rtol=1e-5, atol=1e-5)


def test_scaled_frames_give_another_loss(s1_golden_dual_ar, batch):
    losses = [
        dual_ar_loss(s1_golden_dual_ar("A", scale_codebook_embeddings=scaled), *batch).loss.item()
        for scaled in (False, True)
    ]
    assert abs(losses[0] - losses[1]) > 1e-2


@pytest.mark.parametrize("name", MODELS)
def test_without_frames_the_code_part_is_zero(unscaled, short_batch, batch, name):
    model = unscaled(name)
    inputs, _, mask = short_batch
    words = inputs.roll(-1, dims=2)  # each position's label is the token that comes next
    labels = torch.full_like(inputs, IGNORED)
    labels[:, 0, :-1] = words[:, 0, :-1]
    parts = dual_ar_loss(model, inputs, labels, mask)
    assert (parts.semantic_loss, parts.top_5_accuracy) == (0, 0) and parts.loss == parts.base_loss > 1
    parts.loss.backward()
    gradients = {key: p.grad for key, p in model.named_parameters()}
    assert gradients["embeddings.weight"].norm() > 0
    assert all(not gradients[key].any() for key in gradients if key.startswith("fast_") and gradients[key] is not None)


def test_a_batch_without_any_label_has_no_loss_and_no_gradient(unscaled, short_batch):
    model = unscaled("A")
    assert (short_batch[1] == IGNORED).all()
    sums = dual_ar_sums(model, *short_batch)
    assert sums.means().loss == 0
    (sums.base + sums.semantic).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_codes_below_other_tokens_are_not_counted(unscaled, batch):
    model, (_, labels, _) = unscaled("A"), batch
    frames = int(((labels[:, 0] >= 335) & (labels[:, 0] <= 1434)).sum())
    assert (labels[:, 1:] != IGNORED).sum() > 4 * frames  # those below the end token
    assert label_counts(model, labels).tolist() == [frames + 2, 4 * frames]
    sums = dual_ar_sums(model, *batch)
    assert (sums.base_count, sums.semantic_count) == (frames + 2, 4 * frames)


@pytest.mark.parametrize("name", MODELS)
def test_recomputed_activations_give_the_same_loss_and_gradients(unscaled, batch, name):
    results = []
    for recompute in (False, True):
        model = unscaled(name)
        model.recompute_activations = recompute
        loss = dual_ar_loss(model, *batch).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_of_a_base_of_any_dtype_learn_in_any_precision(s1_golden_dual_ar, batch, dtype, autocast):
    model = s1_golden_dual_ar("A", lora={"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.0}).train()
    for key, parameter in model.named_parameters():
        if "lora_" not in key:
            parameter.data = parameter.data.to(dtype)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=5e-3)
    losses = []
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            parts = dual_ar_loss(model, *batch)
        optimizer.zero_grad()
        parts.loss.backward()
        optimizer.step()
        losses.append(parts.loss.item())
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in learning)
    assert losses[-1] < losses[0] - 0.5


def test_new_adapters_of_s1_answer_as_its_base_does(s1_golden_dual_ar):
    model = s1_golden_dual_ar("A")
    install_lora(model, LoraConfig(r=4, lora_alpha=8.0, lora_dropout=0.0))
    check_fresh_adapters(model)
    with torch.no_grad():
        model.fast_layers[0].attention.wo.lora_B.add_(0.1)
    with pytest.raises(RuntimeError, match="new LoRA adapters change"):
        check_fresh_adapters(model)


def test_shuffled_frames_are_the_same_frames_elsewhere(s1_golden_dual_ar, batch):
    model, (inputs, labels, _) = s1_golden_dual_ar("A"), batch
    shuffled = shuffled_frames({"inputs": inputs, "labels": labels}, model)
    for row in range(2):
        where = ((labels[row, 0] >= 335) & (labels[row, 0] <= 1434)).nonzero()[:, 0]
        old, new = labels[row][:, where], shuffled["labels"][row][:, where]
        assert sorted(map(tuple, old.T.tolist())) == sorted(map(tuple, new.T.tolist())) and not torch.equal(old, new)
        assert torch.equal(new, shuffled["inputs"][row][:, where + 1])
        others = torch.ones(labels.size(2), dtype=torch.bool)
        others[where] = False
        assert torch.equal(shuffled["labels"][row][:, others], labels[row][:, others])


def test_samples_one_by_one_add_up_to_the_batch(unscaled, batch):
    model = unscaled("A")
    with torch.no_grad():
        whole = dual_ar_sums(model, *batch)
        apart = [dual_ar_sums(model, *(values[row : row + 1] for values in batch)) for row in range(2)]
    for total, parts in zip(whole, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(total, sum(parts), rtol=1e-5, atol=1e-5)
