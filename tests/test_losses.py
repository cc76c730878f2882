import torch

from spro_hf.losses import denoising_loss

PREDICTION = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 2.0]]])
TARGET = torch.tensor([[[0.0, 2.0], [3.0, 2.0]], [[0.0, 1.0], [0.0, 0.0]]])


def test_mean_over_pixels_then_samples():
    # sample 1: (1² + 0 + 0 + 2²) / 4 = 1.25; sample 2: (0 + 1² + 0 + 2²) / 4 = 1.25 → mean 1.25
    assert denoising_loss(PREDICTION, TARGET).item() == 1.25


def test_weights_are_not_normalised():
    # (2 · 1.25 + 0 · 1.25) / 2 = 1.25; (1 · 1.25 + 0.5 · 1.25) / 2 = 0.9375
    assert denoising_loss(PREDICTION, TARGET, torch.tensor([2.0, 0.0])).item() == 1.25
    assert denoising_loss(PREDICTION, TARGET, torch.tensor([1.0, 0.5])).item() == 0.9375


def test_gradient_by_hand():
    # dL/dv = 2·(v − u) / (4 pixels · 2 samples): the first pixel's is 2·1/8 = 0.25, the last one's 2·2/8 = 0.5
    prediction = PREDICTION.clone().requires_grad_()
    denoising_loss(prediction, TARGET).backward()
    assert prediction.grad.flatten().tolist() == [0.25, 0, 0, 0.5, 0, -0.25, 0, 0.5]


def test_half_precision_is_summed_in_float32():
    # 1 + 2⁻⁷ is a bfloat16; its square is not: in float32 (2⁻⁷)² = 2⁻¹⁴ survives the difference and the mean
    one = torch.ones(1, 4, dtype=torch.bfloat16)
    loss = denoising_loss(one + 2**-7, one)
    assert loss.dtype == torch.float32
    assert loss.item() == 2**-14
