"""The stages: artifacts in, artifacts out."""

from spro_hf.stages import evaluate, image, multimodal, prompt, references, reinforce

STAGES = {
    "prompt": prompt.run,
    "image": image.run,
    "multimodal": multimodal.run,
    "references": references.run,
    "reinforce": reinforce.run,
    "evaluate": evaluate.run,
}
