#!/bin/bash
# A recipe on the nodes of a Slurm job, one process for each GPU. Everything after the script goes to `spro-hf run`:
#   sbatch --nodes 2 recipes/accelerate/slurm.sh recipes/sdxl/aesthetics/spro.yaml --hub https://huggingface.co --out runs/sdxl
# A run that was killed continues by the same command, so the job is put back where a node fails, it is preempted or its time is over.
#SBATCH --job-name=spro
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail

: "${SLURM_JOB_ID:?is not set: start this by sbatch}"
: "${SLURM_GPUS_ON_NODE:?is not set: ask for GPUs, as by --gpus-per-node=8}"
export GPUS=$((SLURM_NNODES * SLURM_GPUS_ON_NODE))
export FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export PORT=$((20000 + SLURM_JOB_ID % 10000))  # another job may have the same node

trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
# in single quotes: each node has a SLURM_NODEID of its own
srun --kill-on-bad-exit=1 bash -c 'exec accelerate launch --config_file recipes/accelerate/multi_node.yaml \
    --num_machines "$SLURM_NNODES" --num_processes "$GPUS" --machine_rank "$SLURM_NODEID" \
    --main_process_ip "$FIRST" --main_process_port "$PORT" -m spro_hf run "$@"' bash "$@" &
wait $!  # in the background, since bash hears the signal only while it waits
