"""Networks, with the state-dict names of the published checkpoints."""
