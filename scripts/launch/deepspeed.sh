#!/bin/sh
# A whole run through the DeepSpeed launcher, started on the first node only; it reaches the others by ssh (pdsh):
#
#   HOSTFILE=scripts/launch/hostfile MASTER=10.0.0.1 NODES=2 PROCESSES=8 sh scripts/launch/deepspeed.sh demo
#
# Variables that the other nodes need (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME) go into a file .deepspeed_env in the
# working folder, one NAME=value a line. The run's folder (OUT) must lie on a disk that all nodes share.
#
# What restarts what: nothing does. DeepSpeed 0.19 has no elastic agent; when a worker dies its launcher ends all
# nodes with a non-zero code. Whatever started this file has to start it again (or: until sh deepspeed.sh ...; do
# sleep 10; done); --auto-resume goes on from the last checkpoint, also on another number of processes.
#
# SIGTERM to this process (not to the other nodes) saves and ends everything with 0 within five minutes:
# generalist.launchers.deepspeed is DeepSpeed's launcher that puts the signal into the run's folder. DeepSpeed's own
# ends with 1 and gives its workers 30 s at most, and so does a SIGTERM that reaches the other nodes first.
set -eu
recipe=${1:?usage: HOSTFILE=... MASTER=... sh deepspeed.sh RECIPE [key=value ...]}
shift
exec python -m generalist.launchers.deepspeed --hostfile "${HOSTFILE:?file with lines: address slots=N}" \
    --num_nodes "${NODES:?number of nodes}" --num_gpus "${PROCESSES:-1}" \
    --master_addr "${MASTER:?address of the first node}" --master_port "${PORT:-29500}" \
    --no_local_rank --module generalist.cli train "$recipe" "$@" --out "${OUT:-runs/$(basename "$recipe" .py)}" --auto-resume --quiet
