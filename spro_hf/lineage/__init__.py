"""Where an artifact comes from: the graph of what it was made of, two versions side by side, and making it once more."""
