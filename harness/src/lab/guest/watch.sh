#!/bin/bash
# Without containerd nobody gets onto this node any more, not even to put it back. When a procedure has left it down for two
# minutes, it gets the configuration again that it had. All else is left to put-back.
dir=$(cd "$(dirname "$0")" && pwd)
down=0
while sleep 10; do
  [ -e "$dir/saved" ] || exit 0
  if timeout 10 ctr version >/dev/null 2>&1; then
    down=0
  elif [ $((down += 10)) -ge 120 ]; then
    tar -C / -xpf "$dir/files.tar" etc/containerd/config.toml
    systemctl restart containerd
    down=0
  fi
done
