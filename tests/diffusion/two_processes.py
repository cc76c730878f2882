"""Run by torchrun, or by itself: one policy update of four pictures, of which the last two are skipped.

Prints one line of JSON from the first process: how often gradients were reduced, and the LoRA's sums by process.
"""

import json
import sys

import torch
from torch import distributed

from spro_hf import parallel
from spro_hf.diffusion.environment import Environment, load_generator
from spro_hf.diffusion.learner import Learner
from spro_hf.diffusion.player import Play
from spro_hf.diffusion.policy import improve
from spro_hf.methods import Policy

torch.set_num_threads(1)
parallel.start()
environment = Environment(load_generator(sys.argv[1]), {"num_inference_steps": 3, "max_sequence_length": 0})
learner = Learner(environment, {"rank": 4, "alpha": 8, "targets": None}, lr=1e-3, seed=0)
mine = list(parallel.share_of(4))
prompts = ["a red circle", "a red circle", "a blue square", "a blue square"]
_, trajectory = environment.record([prompts[i] for i in mine], mine, Play("flow_sde", 0.7, (0, 1)))
reductions, reduce = [], distributed.all_reduce
distributed.all_reduce = lambda tensor: (reductions.append(tensor.numel()), reduce(tensor))
worth = torch.tensor([1.0, -1.0, 0.0, 0.0])
told = improve(learner, learner.copy(), trajectory, worth, [[0, 1]], Policy(batch_size=1), (0, 1))
weights = {name: value.double() for name, value in learner.copy().items()}
sums = parallel.gather([sum(float(value.sum()) for value in weights.values())])
if parallel.first():
    torch.save(weights, sys.argv[2])
    print(json.dumps({"reductions": reductions, "sums": sums, "mine": mine, "norm": told["norm"]}))
parallel.stop()
