"""What families of pipelines need that cannot be seen from the pipeline itself: one table, each line with its reason."""

from __future__ import annotations

# By pipeline class: arguments of a call without classifier-free guidance, where a scale of 1 is not "off".
UNGUIDED: dict[str, dict[str, float]] = {
    "ZImagePipeline": {"guidance_scale": 0.0},  # counts any scale above 0 as guidance
}
