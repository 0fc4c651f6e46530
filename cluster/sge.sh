#!/usr/bin/env bash
# `jemtrack run` as a job of one core, which submits the jobs for the stages: for clusters where no
# process may stay on the login node. Type, in the project,
#
#     qsub cluster/sge.sh [STAGE...]
#
# jemtrack.yaml says what `sge` is; `qsub -v CLUSTER=other cluster/sge.sh` chooses another of its
# clusters. Before Grid Engine kills it, it sends USR2, which is handed on as TERM: the stages save
# their checkpoints, and the same command resumes them.
#$ -N jemtrack
#$ -cwd
#$ -j y
#$ -S /bin/bash
#$ -notify
set -euo pipefail
source .venv/bin/activate
jemtrack run --on "${CLUSTER:-sge}" "$@" &
trap 'kill -TERM $!' USR2 TERM
# A signal ends the first `wait`; the second one is for the end of the command.
wait $! || wait $!
