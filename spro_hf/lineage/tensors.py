"""How far two tensors are apart."""

from __future__ import annotations

import torch

from spro_hf.lineage.values import Bounds, Found

BLOCK = 1 << 22  # elements that are looked at together, in double precision


def difference(a: torch.Tensor, b: torch.Tensor, place: str, bounds: Bounds) -> Found | None:
    """None if they are equal bit for bit; else the greatest differences, absolute and relative to the greater of the two,
    and the share of elements that differ."""
    if a.dtype != b.dtype or a.shape != b.shape:
        told = " and ".join(f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in (a, b))
        return Found(place, f"is {told}", False)
    a, b = a.flatten(), b.flatten()
    if torch.equal(_bytes(a), _bytes(b)):
        return None
    absolute = relative = 0.0
    differing, within = 0, a.is_floating_point()
    for x, y in zip(a.split(BLOCK), b.split(BLOCK), strict=True):
        differing += int((_bytes(x).view(len(x), -1) != _bytes(y).view(len(y), -1)).any(1).sum())
        x, y = x.double(), y.double()
        apart = (x - y).abs().nan_to_num(float("inf"))
        apart[(x == y) | (x.isnan() & y.isnan())] = 0.0
        absolute = max(absolute, apart.max().item())
        share = (apart / torch.maximum(x.abs(), y.abs())).nan_to_num(0.0, posinf=float("inf"))
        relative = max(relative, share.max().item())
        within = within and bool((apart <= bounds.atol + bounds.rtol * y.abs().nan_to_num(0.0)).all())
    said = f"{differing} of {len(a)} elements differ ({differing / len(a):.2%}), by at most {absolute:.3g}, relative {relative:.3g}"
    return Found(place, said, within, absolute, relative)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)
