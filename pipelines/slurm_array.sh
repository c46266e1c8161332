#!/bin/bash
# Denoise a BIDS data set on Slurm, one subject a task; no scheduler but Slurm.
#
#   sbatch --array=1-$(ls -d RAW/sub-* | wc -l)%50 slurm_array.sh RAW OUT [options of medddpm-bids]
#
# Give the same command again after a failure or a time limit: what is done is skipped. A task that
# ends with 6 is done, and a check has flagged a scan. Afterwards, or with --dependency=afterany:JOB:
#
#   medddpm-bids RAW OUT group --skip-bids-validator
#
# Tried with Slurm 22.05 on one node. Without B: the signal would not reach the script itself.
#SBATCH --job-name=medddpm
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=02:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
set -euo pipefail

raw=${1:?usage: slurm_array.sh RAW OUT [options]}
out=${2:?usage: slurm_array.sh RAW OUT [options]}
shift 2

mapfile -t subjects < <(find "$raw" -maxdepth 1 -type d -name 'sub-*' -printf '%f\n' | sort)
index=$((${SLURM_ARRAY_TASK_ID:?submit this with sbatch --array} - 1))
if ((index >= ${#subjects[@]})); then
    echo "task $((index + 1)): there are only ${#subjects[@]} subjects" >&2
    exit 0
fi

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
exec medddpm-bids "$raw" "$out" participant --participant-label "${subjects[index]}" \
    --skip-bids-validator "$@"
