#!/usr/bin/env bash
# Test and measure the library on JAX and on torch, on a GPU if there is one: the contract tests, the time of a step, and
# a wide residual network trained for the same seconds with and without importance sampling. It takes under ten minutes.
#
#   bash benchmarks/gpu.sh [FOLDER]
#
# FOLDER (default: gpu) gets the tables, plots and logs. Keras and the small packages are installed from the wheels in
# `benchmarks/wheels`, if that folder exists, and from the package index otherwise. JAX and torch are those that the
# system's Python has. SECONDS_EACH (default: 40) is the training time of each way and seed.
set -euo pipefail
cd "$(dirname "$0")/.."

out="$(mkdir -p "${1:-gpu}" && cd "${1:-gpu}" && pwd)"
environment="$out/environment"
python3 -m venv --system-site-packages "$environment"
wheels=()
[ -d benchmarks/wheels ] && wheels=(--no-index --find-links benchmarks/wheels)
"$environment/bin/pip" install -q "${wheels[@]}" keras numpy blinker transparent-keras pytest scipy pandas h5py matplotlib
python="$environment/bin/python"
export PYTHONPATH="$PWD:$PWD/benchmarks" XLA_PYTHON_CLIENT_PREALLOCATE=false

# Run a command, with its output in a file and on the terminal; a failure doesn't end the script, but its exit status.
failed=()
run() {
    local name="$1"
    shift
    echo "== $name"
    "$@" 2>&1 | tee "$out/$name.log" | tail -n 40 || failed+=("$name")
}

declare -A devices=(
    [jax]="import jax; print(jax.devices())"
    [torch]="import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')"
)
for backend in jax torch; do
    export KERAS_BACKEND="$backend"
    if ! "$python" -c "import $backend, keras" 2>"$out/$backend-import.log"; then
        echo "NOT TESTED ON $backend: it isn't installed, or Keras can't be imported with it, see $out/$backend-import.log." >&2
        failed+=("$backend-import")
        continue
    fi
    run "$backend-devices" "$python" -c "${devices[$backend]}"
    run "$backend-tests" "$python" -m pytest -o addopts="" -q -x tests/test_contract.py tests/test_rows.py
    run "$backend-overhead" "$python" benchmarks/overhead.py --quick --json "$out/$backend-overhead.json"
    run "$backend-wide-resnet" "$python" -m importance_sampling compare wide_resnet:build --data wide_resnet:load \
        --seconds "${SECONDS_EACH:-40}" --seeds 1 --out "$out/$backend-wide-resnet"
done

if [ "${#failed[@]}" -gt 0 ]; then
    echo "FAILED: ${failed[*]}" >&2
    exit 1
fi
