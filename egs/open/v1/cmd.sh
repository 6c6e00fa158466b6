#!/usr/bin/env bash
# What runs the jobs. run_jobs.sh: here and now. On a cluster: "utils/slurm_jobs.sh --mem 4G", or Kaldi's own run.pl,
# queue.pl or slurm.pl with its options.
export train_cmd="utils/run_jobs.sh"
export cuda_cmd="utils/run_jobs.sh"
