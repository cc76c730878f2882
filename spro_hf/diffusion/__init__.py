"""The diffusion side: any diffusers text-to-image pipeline as it is, its LoRA, its fine-tuning, and SPROPipeline."""
