#!/usr/bin/env bash
# `jemtrack run` as a job of one core, which submits the jobs for the stages: for clusters where no
# process may stay on the login node. Type, in the project,
#
#     sbatch cluster/slurm.sh [STAGE...]
#
# jemtrack.yaml says what `slurm` is; `CLUSTER=other sbatch ...` chooses another of its clusters.
# Before its time is over, Slurm sends TERM: the stages save their checkpoints, and the same command
# resumes them.
#SBATCH --job-name=jemtrack
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --time=7-00:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?type: sbatch cluster/slurm.sh}"
source .venv/bin/activate
exec jemtrack run --on "${CLUSTER:-slurm}" "$@"
