"""Artifacts: how they reach the Hub and come back, their cards, and a small local Hub-compatible server.

Nothing is imported here: the clients read ``HF_ENDPOINT`` when they are imported, so the server and
``client_environment`` must be usable before any of them is.
"""
