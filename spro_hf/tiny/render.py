"""The renderer of the embedded world: a scene and a seed in, a 32×32 RGB picture out, the same one every time.

Shapes are signed distance fields in pixels, positive outside, cached per shape and radius on a canvas twice the picture's
size and cut out where an object stands; one antialiased mask costs a slice.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from spro_hf.tiny.world import Truth

SIZE = 32
RGB = {
    "red": (225, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 225, 50),
    "green": (60, 190, 70),
    "cyan": (50, 205, 215),
    "blue": (50, 95, 235),
    "purple": (150, 70, 215),
    "pink": (250, 130, 185),
    "black": (22, 22, 28),
    "white": (248, 248, 248),
    "gray": (125, 130, 135),
    "navy": (50, 60, 125),
    "forest": (45, 95, 60),
    "maroon": (115, 40, 50),
    "olive": (120, 115, 60),
    "sand": (205, 180, 135),
    "silver": (190, 195, 200),
    "mint": (165, 215, 185),
}
_PALETTE = {name: np.array(rgb, np.float32) / 255 for name, rgb in RGB.items()}
_CENTRES = {
    "center": ((16, 16),),
    "left": ((9, 16),),
    "right": ((23, 16),),
    "top": ((16, 9),),
    "bottom": ((16, 23),),
    "side by side": ((8, 16), (24, 16)),
    "stacked": ((16, 8), (16, 24)),
}
_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
_RADIUS = np.hypot(_ROWS - 15.5, _COLUMNS - 15.5) / np.float32(15.5 * 2**0.5)
_VIGNETTE = (1 - 0.85 * _RADIUS**2)[..., None]
_SKY = ((1 - _ROWS / 31) ** 1.1 * 0.9)[..., None]
_EDGE = np.minimum(np.minimum(_ROWS, 31 - _ROWS), np.minimum(_COLUMNS, 31 - _COLUMNS))


def _polygon(x: np.ndarray, y: np.ndarray, points: list[tuple[float, float]]) -> np.ndarray:
    """Signed distance to a closed polygon: the nearest edge, with the sign from crossings of each edge."""
    p = np.array(points)
    distance = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(p, np.roll(p, -1, axis=0), strict=True):
        ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
        t = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        distance = np.minimum(distance, np.hypot(wx - t * ex, wy - t * ey))
        if ay != by:
            inside ^= ((y >= ay) != (y >= by)) & (x < ax + (y - ay) / (by - ay) * ex)
    return np.where(inside, -distance, distance)


def _ring_of_points(n: int, radii: tuple[float, ...], turn: float) -> list[tuple[float, float]]:
    angles = [turn + 2 * np.pi * i / n for i in range(n)]
    return [(radii[i % len(radii)] * np.cos(a), radii[i % len(radii)] * np.sin(a)) for i, a in enumerate(angles)]


def _heart() -> list[tuple[float, float]]:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return list(zip(1.05 * x, 1.05 * y - 0.1, strict=True))


_OUTLINES = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0.0, -1.05), (1.05, 0.85), (-1.05, 0.85)],
    "diamond": [(0.0, -1.15), (0.8, 0.0), (0.0, 1.15), (-0.8, 0.0)],
    "star": _ring_of_points(10, (1.2, 0.48), -np.pi / 2),
    "heart": _heart(),
    "cross": [(x * a, y * b) for x, y, a, b in (
        (-1, -1, 0.32, 1.05), (1, -1, 0.32, 1.05), (1, -1, 0.32, 0.32), (1, -1, 1.05, 0.32),
        (1, 1, 1.05, 0.32), (1, 1, 0.32, 0.32), (1, 1, 0.32, 1.05), (-1, 1, 0.32, 1.05),
        (-1, 1, 0.32, 0.32), (-1, 1, 1.05, 0.32), (-1, -1, 1.05, 0.32), (-1, -1, 0.32, 0.32),
    )],
    "arrow": [(-1.1, -0.3), (0.05, -0.3), (0.05, -0.95), (1.15, 0.0), (0.05, 0.95), (0.05, 0.3), (-1.1, 0.3)],
}  # fmt: skip


@lru_cache(maxsize=64)
def _field(shape: str, radius: int) -> np.ndarray:
    """Signed distance in pixels on a 64×64 canvas whose middle (32, 32) is the object's centre."""
    y, x = (np.mgrid[0 : 2 * SIZE, 0 : 2 * SIZE] - SIZE) / radius
    if shape == "circle":
        field = np.hypot(x, y) - 0.95
    elif shape == "ring":
        field = np.abs(np.hypot(x, y) - 0.78) - 0.24
    elif shape == "moon":
        field = np.maximum(np.hypot(x, y) - 1.05, 0.82 - np.hypot(x - 0.5, y))
    else:
        field = _polygon(x, y, _OUTLINES[shape])
    return (field * radius).astype(np.float32)


def _cut(shape: str, radius: int, cx: int, cy: int) -> np.ndarray:
    return _field(shape, radius)[SIZE - cy : 2 * SIZE - cy, SIZE - cx : 2 * SIZE - cx]


def _blend(canvas: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return canvas + mask[..., None] * (colour - canvas)


def _soften(canvas: np.ndarray) -> np.ndarray:
    """One pass of a 1-2-1 kernel along both axes, edges repeated."""
    for axis in (0, 1):
        padded = np.pad(canvas, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        canvas = (padded.take(range(SIZE), axis) + 2 * canvas + padded.take(range(2, SIZE + 2), axis)) / 4
    return canvas


def render(truth: Truth, seed: int) -> np.ndarray:
    """Draw a scene. The seed moves objects by a pixel or two, and draws sizes, specks and grain.

    Returns: uint8 array of shape (32, 32, 3).
    """
    rng = np.random.default_rng(seed)
    has = truth.modifiers.__contains__
    canvas = np.broadcast_to(_PALETTE[truth.background], (SIZE, SIZE, 3))
    if has("gradient sky"):
        canvas = canvas + _SKY * (np.array((0.45, 0.75, 1.0), np.float32) - canvas)
    if has("busy clutter"):
        canvas = canvas.copy()
        for _ in range(16):
            row, column = rng.integers(0, SIZE - 2, 2)
            canvas[row : row + 2, column : column + 2] = rng.random(3)
    single = len(truth.things) == 1
    for thing, (x, y) in zip(truth.things, _CENTRES[truth.arrangement], strict=True):
        radius = int(rng.integers(7, 9) if single else rng.integers(5, 7))
        x, y = x + int(rng.integers(-1, 2)), y + int(rng.integers(-1, 2))
        canvas = _draw(canvas, thing.shape, _PALETTE[thing.colour], radius, x, y, has)
    if has("warm palette"):
        canvas = canvas * np.array((1.10, 0.95, 0.62), np.float32) + np.array((0.10, 0.03, 0.0), np.float32)
    if has("cool palette"):
        canvas = canvas * np.array((0.62, 0.92, 1.10), np.float32) + np.array((0.0, 0.04, 0.12), np.float32)
    if has("high contrast"):
        canvas = (canvas - 0.5) * 1.6 + 0.5
    if has("dark vignette"):
        canvas = canvas * _VIGNETTE
    if has("heavy blur"):
        canvas = _soften(_soften(_soften(canvas)))
    if has("film grain"):
        canvas = canvas + rng.normal(0, 0.11, (SIZE, SIZE, 1)).astype(np.float32)
    if has("neat frame"):
        canvas = _blend(canvas, (_EDGE < 2).astype(np.float32), np.array((0.96, 0.93, 0.84), np.float32))
        canvas = _blend(canvas, (_EDGE == 2).astype(np.float32), np.array((0.15, 0.12, 0.10), np.float32))
    return (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)


def _draw(canvas, shape, colour, radius, x, y, has) -> np.ndarray:
    field = _cut(shape, radius, x, y)
    if has("soft shadow"):
        shade = 0.7 / (1 + np.exp(_cut(shape, radius, x + 3, y + 3) / 0.9))
        canvas = _blend(canvas, shade, np.float32(0.04))
    if has("gentle glow"):
        halo = 0.75 * np.exp(-np.maximum(field, 0) / 2.5)
        canvas = _blend(canvas, halo, np.array((1.0, 0.98, 0.85), np.float32))
    if has("bold outline"):
        edge = np.float32(0.97) if colour.sum() < 0.6 else np.float32(0.04)
        canvas = _blend(canvas, np.clip(1.8 - field, 0, 1), edge)
    return _blend(canvas, np.clip(0.5 - field, 0, 1), colour)
