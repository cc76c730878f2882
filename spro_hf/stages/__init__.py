"""The stages: artifacts in, artifacts out."""

from spro_hf.stages import evaluate, image, multimodal, prompt, reinforce

STAGES = {
    "prompt": prompt.run,
    "image": image.run,
    "multimodal": multimodal.run,
    "reinforce": reinforce.run,
    "evaluate": evaluate.run,
}
