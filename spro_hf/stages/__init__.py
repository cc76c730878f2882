"""The stages: artifacts in, artifacts out."""

from spro_hf.stages import evaluate, image, multimodal, prompt

STAGES = {"prompt": prompt.run, "image": image.run, "multimodal": multimodal.run, "evaluate": evaluate.run}
