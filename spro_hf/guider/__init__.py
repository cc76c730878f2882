"""The guider: a chat model that rewrites prompts, seeing their pictures or not, how it is asked, read and taught."""
