"""The guider: a vision-language model that rewrites prompts, how it is asked, read and taught."""
