# Environment of every GridRay node: sourced by the start commands and, through ~/.profile, by `ray exec` and `ray submit`.
# Token authentication is said explicitly, so that a node can never start open; the token itself comes by file_mounts.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token"
export RAY_USAGE_STATS_ENABLED=0
# Ray's processes share the cores already: more threads in each are slower.
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMEXPR_NUM_THREADS=1
export GRIDRAY_VENV="${GRIDRAY_VENV:-$HOME/gridray-venv}"
export GRIDRAY_NODE_CPUS="${GRIDRAY_NODE_CPUS:-$(nproc)}"
export GRIDRAY_OBJECT_STORE_BYTES="${GRIDRAY_OBJECT_STORE_BYTES:-1000000000}"
export GRIDRAY_TEMP_DIR="${GRIDRAY_TEMP_DIR:-/tmp/gridray-ray}"
# ~/.local/bin first: the loopback run puts a `ray` there whose `stop` spares other people's Ray.
export PATH="$HOME/.local/bin:$GRIDRAY_VENV/bin:$PATH"
