#!/bin/bash
# Run `ray up clusters/local.yaml` for real on this one machine: start it over ssh, submit jobs, take it down, leave nothing.
#
#   sudo apt-get install dropbear-bin openssh-client rsync
#   clusters/loopback.sh [COMMAND ...]      COMMAND runs on the head after the example, such as: ray status
#
# Four ssh servers on 127.77.0.1 to .4 play four machines, each with a home folder of its own. Needs root: local.yaml has no
# port, so the servers take port 22 of those addresses; and a private mount, so that no real ~/.ssh is touched.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
venv=${GRIDRAY_VENV:-$project/.venv}
limit_s=${GRIDRAY_LOOPBACK_LIMIT_S:-300}
cd "$project"

if [ "${1:-}" != --inside ]; then
  [ "$(id -u)" = 0 ] || { echo "loopback.sh: run it as root: it needs port 22 and a private mount" >&2; exit 1; }
  for tool in dropbear dropbearkey ssh ssh-keygen rsync unshare "$venv/bin/ray"; do
    command -v "$tool" >/dev/null || { echo "loopback.sh: '$tool' is missing: see the top of this file" >&2; exit 1; }
  done
  # Short, as Ray puts sockets below it.
  root=$(mktemp -d /tmp/grl.XXXXXX)
  real_ssh=$(getent passwd "$(id -u)" | cut -d: -f6)/.ssh
  made_ssh=; [ -d "$real_ssh" ] || { mkdir -m 700 "$real_ssh"; made_ssh=yes; }
  # Ends what carries this run's mark in its environment, and only that: other Rays on the machine live on.
  end_marked() {
    for process in /proc/[0-9]*; do
      if tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qx "GRIDRAY_LOOPBACK=$root"; then
        kill "-$1" "${process#/proc/}" 2>/dev/null || true
      fi
    done
  }
  cleanup() {
    end_marked TERM; sleep 1; end_marked KILL; sleep 0.2
    [ -z "$made_ssh" ] || rmdir "$real_ssh"
    rm -rf "$root"
    # Ray names its ssh control folder by user and cluster.
    rm -rf /tmp/ray_ssh_*/"$(printf %s gridray-local | sha256sum | cut -c1-10)"
    rmdir /tmp/ray_ssh_* 2>/dev/null || true
  }
  trap cleanup EXIT
  trap 'exit 130' INT TERM
  # In the background, as bash would put off a signal until its child has ended.
  GRIDRAY_LOOPBACK=$root REAL_SSH=$real_ssh timeout -k 10 "$limit_s" unshare --mount "$0" --inside "$@" &
  wait $!
  exit
fi

shift
root=$GRIDRAY_LOOPBACK
mkdir -p "$root"/{ssh,client/.ray,rt/ray,temp}
chmod 700 "$root" "$root"/ssh
# ssh looks below the account's home folder, Ray below $HOME.
ln -s "$root/ssh" "$root/client/.ssh"
mount --bind "$root/ssh" "$REAL_SSH"

node=0
for resources in '{}' '{"utility_north": 1}' '{"utility_south": 1}' '{"utility_east": 1}'; do
  node=$((node + 1)) ip=127.77.0.$node
  home=$root/$ip
  mkdir -p "$home/.local/bin"
  touch "$home/.bashrc" # Ray reads it before every command
  echo "$ip" >"$home/.gridray_node_ip"
  echo "$resources" >"$home/.gridray_resources.json"
  # `ray stop` would end every Ray process of this user: here it ends the processes of this run's node only. Ray's own
  # processes carry the run's folder and their node's address on the command line.
  cat >"$home/.local/bin/ray" <<SHIM
#!/bin/bash
# One start after the other: together they miss Ray's limit of 30 s on a busy machine. -o keeps the lock from Ray's processes.
[ "\${1:-}" != start ] || exec flock -o "$root/start.lock" "$venv/bin/ray" "\$@"
[ "\${1:-}" = stop ] || exec "$venv/bin/ray" "\$@"
for signal in TERM KILL; do
  for process in /proc/[0-9]*; do
    line=\$(tr '\\0' ' ' 2>/dev/null <"\$process/cmdline") || continue
    [[ \$line == *$root/temp* && \$line =~ (node[-_]ip[-_]address|monitor-ip)=$ip( |\$) ]] || continue
    kill -\$signal "\${process#/proc/}" 2>/dev/null || true
  done
  sleep 1
done
SHIM
  # The head calls `ssh -i ~/...`, which ssh looks up below the account's home folder instead of the node's.
  printf '#!/bin/sh\nexec /usr/bin/ssh -i "%s/ssh/gridray_cluster" "$@"\n' "$root" >"$home/.local/bin/ssh"
  chmod +x "$home/.local/bin/"{ray,ssh}
done
cat >"$root/login" <<LOGIN
#!/bin/bash
# The address that the caller connected to says which machine this is.
read -r _ _ ip _ <<<"\$SSH_CONNECTION"
export HOME=$root/\$ip GRIDRAY_LOOPBACK=$root GRIDRAY_VENV=$venv GRIDRAY_TEMP_DIR=$root/temp RAY_TMPDIR=$root/rt
# Jobs that look for "the" Ray of this machine could find another one, which would refuse this run's token.
export RAY_ADDRESS=127.77.0.1:26379
export GRIDRAY_NODE_CPUS=${GRIDRAY_NODE_CPUS:-2} GRIDRAY_OBJECT_STORE_BYTES=100000000 PATH=/usr/local/bin:/usr/bin:/bin
cd && exec bash -c "\$SSH_ORIGINAL_COMMAND"
LOGIN
chmod +x "$root/login"

ssh-keygen -q -t ed25519 -N '' -C loopback -f "$root/ssh/gridray_cluster"
cp "$root/ssh/gridray_cluster.pub" "$root/ssh/authorized_keys"
chmod 600 "$root/ssh/authorized_keys"
dropbearkey -t ed25519 -f "$root/host_key" >/dev/null 2>&1
dropbear -F -E -s -j -k -r "$root/host_key" -P "$root/dropbear.pid" -c "$root/login" \
  -p 127.77.0.1:22 -p 127.77.0.2:22 -p 127.77.0.3:22 -p 127.77.0.4:22 2>"$root/dropbear.log" &

export HOME=$root/client RAY_TMPDIR=$root/rt TMPDIR=$root/rt PATH=$venv/bin:$PATH RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token
unset RAY_ADDRESS
# Autoscaler v2 counts the head among the local provider's workers and starts one too few.
export RAY_UP_enable_autoscaler_v2=0
umask 077
# It refuses to make a token while the path is set to a file that is not there yet.
env -u RAY_AUTH_TOKEN_PATH ray get-auth-token --generate >/dev/null
cluster=clusters/local.yaml

step() {
  local started=$EPOCHREALTIME
  echo "== $1"
  "${@:2}" || { echo "loopback.sh: '$1' failed" >&2; tail -n 20 "$root/dropbear.log" >&2; return 1; }
  awk -v a="$started" -v b="$EPOCHREALTIME" -v n="$1" 'BEGIN { printf "== %s: %.1f s\n", n, b - a }'
}
# One call that waits on the head is lighter than many calls.
wait_for_workers="until ray status --address=127.77.0.1:26379 >~/status && [ \$(grep -c utility_ ~/status) -ge 3 ]
do sleep 1; done; grep -E 'CPU|utility_' ~/status"
all_joined() {
  timeout 150 ray exec --no-config-cache "$cluster" "$wait_for_workers" && return
  tail -n 60 "$root"/temp/session_latest/logs/monitor*
  return 1
}
step "ray up" ray up -y --no-config-cache "$cluster"
step "workers joined" all_joined
step "ray submit" ray submit --no-config-cache "$cluster" examples/cluster_powerflow.py
outcome=0
if [ $# -gt 0 ]; then
  step "ray exec $*" ray exec --no-config-cache "$cluster" "$*" || outcome=$?
fi
step "ray down" ray down -y "$cluster"
exit "$outcome"
