#!/bin/bash
# One style on many GPUs without Slurm. On one machine "fststyle train trainer=ddp" is enough; on several, run this on
# each, with the address of the first, their number and the number of this one (0, 1, …):
#
#     MASTER_ADDR=10.0.0.1 NODES=2 NODE=0 scripts/slurm/torchrun.sh style=wave data.source.streaming=true

torchrun --nnodes="${NODES:-1}" --node-rank="${NODE:-0}" --nproc-per-node="${GPUS:-gpu}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${MASTER_PORT:-29500}" \
    -m fststyle train trainer=ddp resume=auto "$@"
