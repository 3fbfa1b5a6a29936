#!/bin/sh
# One node of a run through torchrun with c10d rendezvous. Run the same file on every node:
#
#   NODES=10.0.0.1,10.0.0.2 NODE=0 PROCESSES=8 INTERFACE=eth0 sh scripts/launch/torchrun.sh demo engine.zero_stage=1
#
# NODES: every node's address, the first hosts the rendezvous. NODE: this node's place in the list, from 0.
# The run's folder (OUT) must lie on a disk that all nodes share.
#
# What restarts what: torchrun starts all workers again when one dies (ten times at most), and they go on from the last
# checkpoint. With MIN_NODES below the number of nodes it also goes on when a whole node is lost. It does not
# survive the first node, which hosts the rendezvous: whatever started this file (SLURM's --requeue, a Kubernetes
# Job, systemd's Restart=on-failure) has to start it again; --auto-resume then goes on from the last checkpoint.
set -eu
recipe=${1:?usage: NODES=... NODE=... sh torchrun.sh RECIPE [key=value ...]}
shift
exec generalist train "$recipe" "$@" --out "${OUT:-runs/$(basename "$recipe" .py)}" --auto-resume --quiet \
    --nodes "${NODES:?addresses of all nodes, comma separated}" --run "${NODE:?number of this node, from 0}" \
    --processes "${PROCESSES:-1}" --min-nodes "${MIN_NODES:-0}" --interface "${INTERFACE:-}" --port "${PORT:-29500}"
