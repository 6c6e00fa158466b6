#!/usr/bin/env bash
# What runs the jobs. run_jobs.sh runs them on this machine. On a cluster use "utils/slurm_jobs.sh --mem 4G", or Kaldi's own
# run.pl, queue.pl or slurm.pl with their options.
export train_cmd="utils/run_jobs.sh"
export cuda_cmd="utils/run_jobs.sh"
