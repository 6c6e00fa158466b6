#!/usr/bin/env bash
# Sourced by run.sh: the environment, and utils/ on the path.
. ../../../tools/env.sh
export PATH=$PWD/utils:$PATH
