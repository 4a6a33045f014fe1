"""PyTorch's side of the configuration `pictures` of benches/train_step.rs: eager mode, channels last, fused AdamW, two threads.

Prints one line: pictures each second, CPU seconds, the losses. Measured with torch 2.15.0, numpy 2.4.6.
Not tuned: no torch.compile, no IPEX, no bfloat16. Does the same work as our side, gradient clipping included.
"""

import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

folder = sys.argv[1]
dim, side, channels, batch, steps, warm_up = map(int, sys.argv[2:])
torch.set_num_threads(2)
stages = 0
while (side >> stages) % 2 == 0 and (side >> stages) >= 8:
    stages += 1
base = side >> stages
width = [max(2 * channels >> s, 16) for s in range(stages + 1)]
values = np.fromfile(f"{folder}/weights.f32", "<f4")
at = 0


def take(*shape):
    global at
    n = int(np.prod(shape))
    at += n
    return torch.from_numpy(values[at - n : at].reshape(shape).copy())


def kernel(c, o):
    """Ours is stored (tap and input channel, output channel), PyTorch's layout is (out, in, row, column)."""
    return take(9 * c, o).view(3, 3, c, o).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


weights = [take(dim, base * base * width[0]), take(base * base * width[0]), take(width[0]), take(width[0])]
for s in range(stages):
    weights += [kernel(width[s], width[s + 1]), take(width[s + 1]), take(width[s + 1]), take(width[s + 1])]
weights += [kernel(width[stages], 3), take(3)]
assert at == len(values)
weights = [w.requires_grad_() for w in weights]


def norm(x, gain, bias):
    """Over channels; `x` lies channels last, so neither permutation copies."""
    y = F.layer_norm(x.permute(0, 2, 3, 1), gain.shape, gain, bias, 1e-5)
    return y.permute(0, 3, 1, 2)


def draw(x):
    w = iter(weights)
    x = (x @ next(w) + next(w)).view(-1, base, base, width[0]).permute(0, 3, 1, 2)
    x = norm(x, next(w), next(w))
    for _ in range(stages):
        x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), next(w), padding=1)
        x = norm(x, next(w), next(w))
        x = F.gelu(x + next(w).view(1, -1, 1, 1))
    return torch.sigmoid(F.conv2d(x, next(w), next(w), padding=1))


gap = torch.arange(side).view(-1, 1) - torch.arange(side)
window = torch.where(gap.abs() > 3, torch.zeros(()), torch.exp(-0.5 * (gap / 1.5) ** 2))
window = window / window.sum(1, keepdim=True)


def blur(x):
    return window @ x @ window.T


def similarity(x, y):
    c1, c2 = 1e-4, 9e-4
    mx, my = blur(x), blur(y)
    sxx, syy, sxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    return ((2 * mx * my + c1) * (2 * sxy + c2) / ((mx * mx + my * my + c1) * (sxx + syy + c2))).mean()


optimiser = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.01, fused=True)
xs = torch.from_numpy(np.fromfile(f"{folder}/x.f32", "<f4")).view(steps, batch, dim)
ys = torch.from_numpy(np.fromfile(f"{folder}/y.f32", "<f4")).view(steps, batch, side, side, 3)
losses = []
for step in range(steps):
    if step == warm_up:
        start = time.perf_counter()
    for group in optimiser.param_groups:
        group["lr"] = 1e-3 * min(1.0, (step + 1) / 4)
    drawn, y = draw(xs[step]).contiguous(), ys[step].permute(0, 3, 1, 2).contiguous()
    loss = ((drawn - y).abs().mean() + 1 - similarity(drawn, y)) / 2
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimiser.step()
    losses.append(loss.item())
rate = (steps - warm_up) * batch / (time.perf_counter() - start)
print(rate, time.process_time(), *(f"{loss:.6f}" for loss in losses))
