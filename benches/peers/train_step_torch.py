"""PyTorch's side of benches/train_step.rs: eager mode, fused AdamW, SDPA, two threads.

Prints one line: tokens each second, CPU seconds, the losses. Measured with torch 2.15.0, safetensors 0.8.0, numpy 2.4.6.
Not tuned: no torch.compile, no IPEX, no bfloat16. Does the same work as our side (gradient clipping included), except
that our side also updates the moving average of the weights.
"""

import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

folder = sys.argv[1]
d, layers, heads, ff_mult, slots, batch, tokens, steps, warm_up = map(int, sys.argv[2:])
torch.set_num_threads(2)
weights = load_file(f"{folder}/weights.safetensors")


class Linear(torch.nn.Linear):
    """Ours is stored (in, out), PyTorch's layout is (out, in)."""

    def __init__(self, name):
        w = weights[f"{name}.weight"]
        super().__init__(w.shape[0], w.shape[1])
        self.weight.data = w.t().contiguous()
        self.bias.data = weights[f"{name}.bias"]


def norm(name):
    layer = torch.nn.LayerNorm(d, eps=1e-5)
    layer.weight.data, layer.bias.data = weights[f"{name}.gain"], weights[f"{name}.bias"]
    return layer


class Layer(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.norm_attention, self.norm_feed = norm(f"{name}.norm_attention"), norm(f"{name}.norm_feed")
        self.qkv, self.out = Linear(f"{name}.qkv"), Linear(f"{name}.out")
        self.up, self.down = Linear(f"{name}.up"), Linear(f"{name}.down")

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (p.view(b, t, heads, d // heads).transpose(1, 2) for p in self.qkv(self.norm_attention(x)).split(d, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm_feed(x))))


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Parameter(weights["embedding"])
        self.position = torch.nn.Parameter(weights["position"])
        self.prefix_in, self.prefix_out = Linear("prefix.in"), Linear("prefix.out")
        self.layers = torch.nn.ModuleList(Layer(f"layer.{i}") for i in range(layers))
        self.norm_final = norm("norm_final")

    def forward(self, cond, text):
        prefix = self.prefix_out(F.gelu(self.prefix_in(cond))).view(-1, slots, d)
        x = torch.cat([prefix, F.embedding(text[:, :-1], self.embedding)], 1) + self.position[: slots + tokens - 1]
        for layer in self.layers:
            x = layer(x)
        logits = F.linear(self.norm_final(x[:, slots - 1 :]), self.embedding)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), text.reshape(-1))


model = Decoder()
decayed = [p for name, p in model.named_parameters() if p.dim() == 2 and name != "position"]
plain = [p for name, p in model.named_parameters() if p.dim() == 1 or name == "position"]
optimiser = torch.optim.AdamW(
    [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=1e-3, fused=True
)
text = torch.from_numpy(np.fromfile(f"{folder}/tokens.u32", "<u4").astype(np.int64)).view(steps, batch, tokens)
cond = torch.from_numpy(np.fromfile(f"{folder}/cond.f32", "<f4")).view(steps, batch, -1)
losses = []
for step in range(steps):
    if step == warm_up:
        start = time.perf_counter()
    for group in optimiser.param_groups:
        group["lr"] = 1e-3 * min(1.0, (step + 1) / 4)
    loss = model(cond[step], text[step])
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    losses.append(loss.item())
rate = (steps - warm_up) * batch * tokens / (time.perf_counter() - start)
print(rate, time.process_time(), *(f"{loss:.6f}" for loss in losses))
